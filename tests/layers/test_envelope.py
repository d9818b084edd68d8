"""Envelopes keep what is put into them, and refuse what is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import MalformedEnvelope
from channels.layers.envelope import (
    WINDOW,
    Envelope,
    Kind,
    SeenWindow,
    decode_envelope,
)

U64 = st.integers(0, 2**64 - 1)
FIELDS = ("kind", "name", "payload", "sender", "seq", "deadline")
envelopes = st.builds(
    Envelope,
    st.sampled_from(Kind),
    st.text(max_size=99),
    st.binary(max_size=300),
    sender=st.binary(min_size=8, max_size=8),
    seq=U64,
    deadline=U64,
)


@given(envelopes)
def test_round_trip(envelope: Envelope) -> None:
    back = decode_envelope(envelope.encoded)
    assert [getattr(back, field) for field in FIELDS] == [
        getattr(envelope, field) for field in FIELDS
    ]


@given(envelopes, st.data())
def test_an_envelope_cut_in_its_head_or_name_is_refused(
    envelope: Envelope, data: st.DataObject
) -> None:
    head = len(envelope.encoded) - len(envelope.payload)
    cut = data.draw(st.integers(0, head - 1))
    with pytest.raises(MalformedEnvelope):
        decode_envelope(envelope.encoded[:cut])


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_or_decoded_but_never_crash(data: bytes) -> None:
    with contextlib.suppress(MalformedEnvelope):
        assert decode_envelope(data).encoded[:1] in {b"\x01", b"\x02"}


def test_another_version_is_named() -> None:
    data = Envelope(Kind.GROUP, "g", b"", sender=b"12345678", seq=1).encoded
    with pytest.raises(MalformedEnvelope, match="version 9, expected 1 or 2"):
        decode_envelope(b"\x09" + data[1:])


def test_deadline() -> None:
    envelope = Envelope(Kind.GROUP, "g", b"", sender=b"12345678", seq=1, deadline=5000)
    assert not envelope.is_expired(4.999)
    assert envelope.is_expired(5.0)
    assert not Envelope(Kind.GROUP, "g", b"", sender=b"12345678", seq=1).is_expired(1e12)


@pytest.mark.parametrize(("attempts", "read"), [(0, 0), (1, 1), (63, 63), (500, 63)])
def test_attempts_travel_with_it(attempts: int, read: int) -> None:
    envelope = Envelope(Kind.CHANNEL, "jobs", b"payload", sender=b"12345678", seq=1).again(attempts)
    decoded = decode_envelope(envelope.encoded)
    assert decoded.attempts == read
    assert decoded.payload == b"payload"


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 300)), max_size=300))
def test_within_the_window_it_is_a_set(pairs: list[tuple[bytes, int]]) -> None:
    window = SeenWindow()
    seen: set[tuple[bytes, int]] = set()
    for sender, seq in pairs:
        assert window.is_repeat(sender, seq) is ((sender, seq) in seen)
        seen.add((sender, seq))


@given(st.lists(st.integers(1, 3 * WINDOW), min_size=1, max_size=300))
def test_restored_it_knows_the_same(numbers: list[int]) -> None:
    window, other = SeenWindow(), SeenWindow()
    for seq in numbers:
        window.is_repeat(b"a", seq)
        for entry in window.entries():
            other.restore(*entry)
        assert list(other.entries()) == list(window.entries())
    highest = max(numbers)
    for seq in numbers:
        assert other.is_repeat(b"a", seq)
    for seq in set(range(highest - 50, highest)) - set(numbers):
        assert not other.is_repeat(b"a", seq)


@given(st.lists(st.integers(1, 5), max_size=400), st.data())
def test_rising_numbers_with_gaps(steps: list[int], data: st.DataObject) -> None:
    window, numbers = SeenWindow(), [1]
    for step in steps:
        numbers.append(numbers[-1] + step)
    assert not any(window.is_repeat(b"a", seq) for seq in numbers)
    for seq in data.draw(st.lists(st.integers(1, numbers[-1]), max_size=50, unique=True)):
        assert window.is_repeat(b"a", seq) is (seq in numbers)


def test_what_is_older_than_the_window_counts_as_seen() -> None:
    window = SeenWindow()
    assert not window.is_repeat(b"a", 1)
    assert not window.is_repeat(b"a", 1 + WINDOW)
    assert window.is_repeat(b"a", 1)
    assert not window.is_repeat(b"a", 2)
    assert not window.is_repeat(b"a", 10 * WINDOW)
    assert window.is_repeat(b"a", 10 * WINDOW)


def test_senders_are_bounded() -> None:
    window = SeenWindow(max_senders=2)
    for sender in (b"a", b"b", b"c"):
        assert not window.is_repeat(sender, 1)
    assert window.is_repeat(b"c", 1)
    assert not window.is_repeat(b"a", 1)
