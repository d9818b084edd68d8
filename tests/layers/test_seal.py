"""A seal opens where it was put on and nowhere else; what it binds cannot be changed unnoticed."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import InvalidChannelLayerError, MalformedEnvelope
from channels.layers.envelope import Envelope, Kind, decode_envelope
from channels.layers.seal import Seal, UnauthenticEnvelope, check_address

U64 = st.integers(0, 2**64 - 1)
#: Offset of the flags, which brokers change; no seal binds them.
FLAGS = 1
envelopes = st.builds(
    Envelope,
    st.sampled_from(Kind),
    st.text(max_size=99),
    st.binary(max_size=300),
    sender=st.binary(min_size=8, max_size=8),
    seq=U64,
    deadline=U64,
)
SEAL = Seal(["secret"])


def channel(name: str, payload: bytes = b"meet at noon") -> Envelope:
    return Envelope(Kind.CHANNEL, name, payload, sender=b"12345678", seq=1)


def opens(envelope: Envelope, seal: Seal = SEAL) -> bool:
    try:
        seal.open(envelope)
    except UnauthenticEnvelope:
        return False
    return True


@given(envelopes)
def test_there_and_back(envelope: Envelope) -> None:
    sealed = decode_envelope(SEAL.close(envelope).encoded)
    assert sealed.is_sealed
    assert SEAL.open(sealed) == envelope.payload
    assert len(sealed.payload) == len(envelope.payload) + 28
    if len(envelope.payload) > 8:
        assert envelope.payload not in sealed.encoded


@given(envelopes, st.data())
def test_no_bit_can_be_changed_but_in_the_flags(envelope: Envelope, data: st.DataObject) -> None:
    octets = bytearray(SEAL.close(envelope).encoded)
    at = data.draw(st.integers(0, len(octets) - 1).filter(lambda at: at != FLAGS))
    octets[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = decode_envelope(bytes(octets))
    except MalformedEnvelope:
        return
    assert not opens(changed)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.GROUP])
def test_nothing_sealed_for_a_group_opens_as_another_kind(kind: Kind) -> None:
    sealed = SEAL.close(Envelope(Kind.GROUP, "room", b"x", sender=b"12345678", seq=1))
    moved = Envelope(kind, "room", b"", b"12345678", 1).sealed(sealed.payload)
    assert opens(sealed)
    assert not opens(moved)


@given(
    envelopes, envelopes, st.sets(st.sampled_from(["kind", "name", "sender", "seq", "deadline"]))
)
def test_a_payload_opens_only_under_all_that_it_was_sealed_with(
    one: Envelope, other: Envelope, taken: set[str]
) -> None:
    sealed = SEAL.close(one)
    fields = {
        field: getattr(other if field in taken else one, field)
        for field in ("kind", "name", "sender", "seq", "deadline")
    }
    moved = Envelope(payload=b"", **fields).sealed(sealed.payload)
    assert opens(moved) == all(getattr(one, field) == value for field, value in fields.items())


@given(envelopes, st.data())
def test_a_sealed_payload_cut_short_is_refused(envelope: Envelope, data: st.DataObject) -> None:
    sealed = SEAL.close(envelope)
    cut = data.draw(st.integers(0, len(sealed.payload) - 1))
    assert not opens(envelope.sealed(sealed.payload[:cut]))


@given(envelopes)
def test_what_does_not_say_that_it_is_sealed_is_refused(envelope: Envelope) -> None:
    assert not opens(envelope)
    sealed = SEAL.close(envelope).encoded
    assert not opens(decode_envelope(b"\x01" + sealed[1:]))


def test_brokers_may_count_leases() -> None:
    data = SEAL.close(channel("work")).encoded
    leased = decode_envelope(data[:1] + bytes([3 << 2]) + data[2:])
    assert (leased.attempts, SEAL.open(leased)) == (3, b"meet at noon")
    assert SEAL.open(decode_envelope(leased.again(5).encoded)) == b"meet at noon"


def test_the_first_key_seals_and_all_open() -> None:
    old, both, new = Seal(["old"]), Seal(["new", b"old"]), Seal([b"new"])
    assert opens(old.close(channel("work")), both)
    assert not opens(old.close(channel("work")), new)
    assert opens(both.close(channel("work")), new)
    assert not opens(both.close(channel("work")), old)


def test_the_same_message_sealed_twice_differs() -> None:
    assert SEAL.close(channel("work")).payload != SEAL.close(channel("work")).payload


def test_a_queue_takes_what_was_sent_to_it_or_to_a_group() -> None:
    check_address(channel("work"), "work")
    check_address(Envelope(Kind.GROUP, "room", b"", b"12345678", 1), "work")
    for kind, name in [(Kind.CHANNEL, "other"), (Kind.LATER, "work"), (Kind.ADD, "work")]:
        with pytest.raises(UnauthenticEnvelope, match=r"lay in work"):
            check_address(Envelope(kind, name, b"", b"12345678", 1), "work")


def test_many_senders_and_threads_share_a_seal() -> None:
    failures = []

    def work(number: int) -> None:
        for count in range(2000):
            sender = (number * 1000 + count % 700).to_bytes(8)
            envelope = Envelope(Kind.GROUP, "room", sender, sender, count)
            if SEAL.open(SEAL.close(envelope)) != sender:
                failures.append(envelope)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("keys", ["one secret", b"one secret"])
def test_keys_must_be_a_list(keys: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="must be a list"):
        Seal(keys)
