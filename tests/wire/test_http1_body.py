from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.http1_body import ChunkedBody, LengthBody

SMALL = Limits(request_buffer_bytes=50)


def test_a_body_of_known_length_leaves_the_rest() -> None:
    body = LengthBody(5, Limits())
    buffer = bytearray(b"hel")
    assert body.take(buffer) == b"hel"
    assert not body.is_done
    buffer += b"loGET"
    assert body.take(buffer) == b"lo"
    assert body.is_done
    assert buffer == b"GET"


def test_a_large_body_comes_in_pieces() -> None:
    body = LengthBody(101, SMALL)
    buffer = bytearray(101)
    assert [len(body.take(buffer)) for _ in range(3)] == [50, 50, 1]
    assert body.is_done


def test_small_chunks_come_joined() -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray(b"1\r\na\r\n01\r\nb\r\n2;x=y\r\ncd\r\n0\r\n\r\nGET")
    assert body.take(buffer) == b"abcd"
    assert body.is_done
    assert buffer == b"GET"


def test_a_large_chunk_comes_in_pieces() -> None:
    body = ChunkedBody(SMALL)
    buffer = bytearray(b"64\r\n" + bytes(100) + b"\r\n0\r\n\r\n")
    assert [len(body.take(buffer)) for _ in range(3)] == [50, 50, 0]
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


GOOD_EXTENSIONS = [
    b"",
    b";a",
    b";a=b",
    b" ; a = b",
    b";a;b=c;d",
    b';a=""',
    b';a="b;c\\"d\\\\"; e',
    b";chunk-signature=0123abcd",
]
#: Each is refused with its last octet, and not before.
BAD_EXTENSIONS = [
    b"5;;",
    b"5 \r",
    b"5=",
    b"5x",
    b"5;\r",
    b"5;=",
    b"5;a b",
    b"5;a=;",
    b"5;a=b=",
    b"5;a=\r",
    b'5;a="b"c',
    b'5;a="b\r',
    b'5;"',
    b"5;a\x00",
    b"5;a\n",
    b"5;(",
    b"11112222333344445",
    b";",
    b" ",
    b"-",
]


@pytest.mark.parametrize("line", GOOD_EXTENSIONS)
def test_extensions_of_a_chunk_are_read_past_however_they_are_cut(line: bytes) -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray()
    got = b""
    for octet in b"5" + line + b"\r\nhello\r\n0" + line + b"\r\n\r\n":
        buffer.append(octet)
        got += body.take(buffer)
    assert body.is_done
    assert got == b"hello"


@pytest.mark.parametrize("line", BAD_EXTENSIONS)
def test_a_malformed_size_line_is_refused_at_the_octet_that_makes_it_one(line: bytes) -> None:
    body = ChunkedBody(Limits())
    buffer = bytearray()
    for octet in line[:-1]:
        buffer.append(octet)
        assert body.take(buffer) == b""
    buffer.append(line[-1])
    with pytest.raises(RemoteProtocolError):
        body.take(buffer)


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
