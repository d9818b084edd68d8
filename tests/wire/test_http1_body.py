from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.http1_body import EVENT_BYTES, ChunkedBody, LengthBody


def test_a_body_of_known_length_leaves_the_rest() -> None:
    body = LengthBody(5)
    buffer = bytearray(b"hel")
    assert body.take(buffer) == b"hel"
    assert not body.is_done
    buffer += b"loGET"
    assert body.take(buffer) == b"lo"
    assert body.is_done
    assert buffer == b"GET"


def test_a_large_body_comes_in_pieces() -> None:
    body = LengthBody(EVENT_BYTES + 1)
    buffer = bytearray(EVENT_BYTES + 1)
    assert len(body.take(buffer)) == EVENT_BYTES
    assert len(body.take(buffer)) == 1


def test_small_chunks_come_joined() -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray(b"1\r\na\r\n01\r\nb\r\n2;x=y\r\ncd\r\n0\r\n\r\nGET")
    assert body.take(buffer) == b"abcd"
    assert body.is_done
    assert buffer == b"GET"


def test_a_large_chunk_comes_in_pieces() -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray(b"%x\r\n" % (EVENT_BYTES * 2) + bytes(EVENT_BYTES * 2) + b"\r\n0\r\n\r\n")
    assert len(body.take(buffer)) == EVENT_BYTES
    assert len(body.take(buffer)) == EVENT_BYTES
    assert body.take(buffer) == b""
    assert body.is_done


def test_many_small_extensions_are_too_many() -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray((b"1;" + b"x" * 500 + b"\r\na\r\n") * 100)
    assert len(body.take(buffer)) < 40
    with pytest.raises(RemoteProtocolError, match="extensions"):
        body.take(buffer)


@pytest.mark.parametrize("line", [b"5\rhello", b"5\n", b"0\r\nX: a\rb", b"0\r\nX: a\nb"])
def test_a_line_that_cannot_end_well_is_refused_at_once(line: bytes) -> None:
    body = ChunkedBody(Limits())
    with pytest.raises(RemoteProtocolError):
        body.take(bytearray(line))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 9))
def test_chunks_give_back_what_was_chunked(pieces: list[bytes], step: int) -> None:
    wire = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    body = ChunkedBody(Limits())
    buffer = bytearray()
    got = b""
    for start in range(0, len(wire), step):
        buffer += wire[start : start + step]
        got += body.take(buffer)
    assert body.is_done
    assert got == b"".join(pieces)
    assert not buffer
