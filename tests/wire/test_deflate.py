"""permessage-deflate: what is agreed, and messages through it (RFC 7692)."""

from __future__ import annotations

import os
import time
import zlib

import pytest

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.deflate import (
    DEFLATE_FROM_BYTES,
    MAX_OFFER_BYTES,
    Deflate,
    deflate,
    negotiate,
)
from channels.wire.websocket import WebSocket
from tests.wire.peer import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    Outcome,
    frame,
    read_frames,
    squeeze,
    ways,
)

RSV1 = 4


def agreed(offer: str = "permessage-deflate") -> Deflate:
    found = negotiate([offer])
    assert found is not None
    return found


def inflate(payload: bytes) -> bytes:
    return zlib.decompress(payload + b"\x00\x00\xff\xff\x03\x00", wbits=-15)


BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offers", "answer", "bits"),
    [
        (["permessage-deflate"], BOTH, 15),
        # RFC 7692 section 7.1.2.2: a hint that the parameter is understood asks for nothing.
        (["permessage-deflate; client_max_window_bits"], BOTH, 15),
        (
            ["permessage-deflate; client_max_window_bits=10"],
            BOTH + "; client_max_window_bits=10",
            15,
        ),
        (
            ["permessage-deflate; server_max_window_bits=9"],
            BOTH + "; server_max_window_bits=9",
            9,
        ),
        (["permessage-deflate; server_max_window_bits=8, permessage-deflate"], BOTH, 15),
        (["permessage-deflate; unknown=1", "permessage-deflate"], BOTH, 15),
        (["x-webkit-deflate-frame, permessage-deflate"], BOTH, 15),
    ],
)
def test_the_first_offer_that_can_be_met_is_taken(
    offers: list[str], answer: str, bits: int
) -> None:
    found = negotiate(offers)
    assert found is not None
    assert found.header == answer
    assert found.window_bits == bits


@pytest.mark.parametrize(
    "offers",
    [
        [],
        ["x-webkit-deflate-frame"],
        ["permessage-deflate; server_max_window_bits=8"],
        ["permessage-deflate; server_max_window_bits=16"],
        ["permessage-deflate; server_no_context_takeover=1"],
        ["permessage-deflate; client_max_window_bits=9; client_max_window_bits=9"],
    ],
)
def test_offers_that_cannot_be_met_are_declined(offers: list[str]) -> None:
    assert negotiate(offers) is None


@pytest.mark.parametrize("offer", ["", ";", "permessage-deflate;", "a=b", 'a; b="'])
def test_a_malformed_offer_is_the_clients_fault(offer: str) -> None:
    with pytest.raises(RemoteProtocolError):
        negotiate([offer])


@pytest.mark.parametrize("more", [",a", ";a=1", ";", ",", ' ;a="x"'])
def test_offers_that_are_too_long_are_not_looked_at(more: str) -> None:
    offer = "permessage-deflate" + more * 20_000
    before = time.thread_time()
    with pytest.raises(RemoteProtocolError) as caught:
        negotiate([offer])
    assert caught.value.status == 431
    assert time.thread_time() - before < 0.005
    with pytest.raises(RemoteProtocolError):
        negotiate(["permessage-deflate", "a" * MAX_OFFER_BYTES])
    assert negotiate(["permessage-deflate", "a" * (MAX_OFFER_BYTES - 18)]) is not None


@pytest.mark.parametrize("size", [0, 5, 2043, 2044, 70000])
def test_compressed_messages_arrive_however_they_are_cut(size: int) -> None:
    payload = ("Füße " * size).encode()[:size].decode(errors="ignore")
    data = frame(TEXT, squeeze(payload.encode()), rsv=RSV1)
    data += frame(BINARY, squeeze(b"\x00" * size), rsv=RSV1)
    for pieces in ways(data) if len(data) < 100 else [[data], [data[:40], data[40:]]]:
        outcome = Outcome(pieces, compression=agreed())
        assert outcome.messages == [payload, b"\x00" * size]
        assert outcome.ended is None


def test_a_compressed_message_may_be_fragmented_and_interrupted() -> None:
    squeezed = squeeze("naïve ".encode() * 100)
    for place in range(len(squeezed)):
        data = (
            frame(TEXT, squeezed[:place], fin=False, rsv=RSV1)
            + frame(PING, b"p")
            + frame(CONTINUATION, squeezed[place:])
            + frame(TEXT, b"plain")
        )
        outcome = Outcome([data], compression=agreed())
        assert outcome.messages == ["naïve " * 100, "plain"]
        assert outcome.pongs == [b"p"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1), 1002),
        (frame(PING, b"", rsv=RSV1), 1002),
        (frame(TEXT, squeeze(b"\xff"), rsv=RSV1), 1007),
        (
            frame(TEXT, squeeze(b"aaaa")[:2], fin=False, rsv=RSV1)
            + frame(CONTINUATION, squeeze(b"aaaa")[2:], rsv=RSV1),
            1002,
        ),
        (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, squeeze(b"y"), rsv=RSV1), 1002),
    ],
)
def test_bad_compressed_frames_are_violations(data: bytes, code: int) -> None:
    for pieces in ways(data):
        outcome = Outcome(pieces, compression=agreed())
        assert outcome.code_told == outcome.code_sent == code


def test_bad_text_is_found_between_the_fragments_of_a_compressed_message() -> None:
    machine = zlib.compressobj(wbits=-15)
    first = machine.compress(b"fine \xff") + machine.flush(zlib.Z_SYNC_FLUSH)
    outcome = Outcome([frame(TEXT, first, fin=False, rsv=RSV1)], compression=agreed())
    assert outcome.code_sent == 1007


@pytest.mark.parametrize("fragment", [1 << 30, 4096, 100])
def test_a_bomb_is_refused_before_it_is_inflated(fragment: int) -> None:
    limits = Limits(max_message_bytes=100_000)
    bomb = squeeze(bytes(64 * 1024 * 1024))
    parts = [bomb[i : i + fragment] for i in range(0, len(bomb), fragment)]
    pieces = [
        frame(CONTINUATION if i else BINARY, part, fin=False, rsv=0 if i else RSV1)
        for i, part in enumerate(parts)
    ]
    outcome = Outcome(pieces, limits, agreed())
    assert outcome.code_told == outcome.code_sent == 1009


def test_a_message_of_exactly_the_limit_passes_even_if_deflate_makes_it_longer() -> None:
    limits = Limits(max_message_bytes=100_000)
    payload = os.urandom(100_000)
    assert len(squeeze(payload)) > 100_000
    whole = Outcome([frame(BINARY, squeeze(payload), rsv=RSV1)], limits, agreed())
    assert whole.messages == [payload]
    over = Outcome([frame(BINARY, squeeze(payload + b"x"), rsv=RSV1)], limits, agreed())
    assert over.code_sent == 1009


def test_messages_are_sent_compressed_from_where_it_pays() -> None:
    machine = WebSocket(Limits(), agreed())
    short, long = "x" * (DEFLATE_FROM_BYTES - 1), "x" * DEFLATE_FROM_BYTES
    machine.send(short)
    machine.send(long)
    machine.send(long)
    (first, plain), (second, squeezed), third = read_frames(machine.data_to_send())
    assert (first, plain) == (0x81, short.encode())
    assert second == 0xC1
    assert inflate(squeezed) == long.encode()
    assert third == (second, squeezed), "no frame may lean on an earlier one"


def test_a_client_with_a_small_window_gets_its_own_frames() -> None:
    compression = agreed("permessage-deflate; server_max_window_bits=9")
    machine = WebSocket(Limits(), compression)
    assert not machine.takes_deflate
    payload = os.urandom(2000) * 2
    machine.send(payload)
    ((first, squeezed),) = read_frames(machine.data_to_send())
    assert first == 0xC2
    small = zlib.decompressobj(wbits=-9)
    assert small.decompress(squeezed + b"\x00\x00\xff\xff") == payload


def test_ready_frames_fit_exactly_those_who_inflate_the_largest_window() -> None:
    assert WebSocket(Limits(), agreed()).takes_deflate
    assert not WebSocket(Limits()).takes_deflate
    assert inflate(deflate(b"a" * 1000)) == b"a" * 1000
