"""Too much of everything: each size has its bound and its status, and costs no memory."""

from __future__ import annotations

import pytest

from tests.hostile.case import Outcome, Row, chunked, get, play, post, refused, served, table
from tests.hostile.client import RawClient
from tests.hostile.process import ServerProcess

MIB = 1 << 20
OPTIONS = {"limits": {"max_body_bytes": MIB}}

ROWS = [
    # RFC 9112 section 3: a longer target than the server parses "MUST" be 414.
    Row("h61-target-of-100-KB", get(path=b"/" + b"a" * 100_000), refused(414)),
    Row("h61b-query-of-100-KB", get(path=b"/?" + b"a" * 100_000), refused(414)),
    Row("h61c-method-of-100-KB", b"A" * 100_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
        refused(400, 414, 501)),
    Row("h61d-target-of-8-KB", get(path=b"/" + b"a" * 8_000), served(f"GET /{'a' * 8_000} 0")),
    # RFC 6585 section 5: 431, for one field and for all of them together.
    Row("h62-field-of-100-KB", get(b"X: " + b"a" * 100_000), refused(431)),
    Row("h62b-name-of-100-KB", get(b"X" * 100_000 + b": a"), refused(431)),
    Row("h62c-field-of-8-KB", get(b"X: " + b"a" * 8_000), served("GET / 0")),
    Row("h63-headers-of-2-MB", get(*[b"X: " + b"a" * 2_000] * 1_000), refused(431)),
    Row("h64-10000-fields", get(*[b"a: b"] * 10_000), refused(431)),
    Row("h64b-101-fields", get(*[b"a: b"] * 101), refused(431)),
    Row("h64c-90-fields", get(*[b"a: b"] * 90), served("GET / 0")),
    # RFC 9110 section 15.5.14: 413; told from the stated length before a byte of the body.
    Row("body-stated-too-large", post(b"Content-Length: %d" % (MIB + 1)),
        refused(413, seen=("POST / gone?",))),
    Row("body-expected-too-large", post(b"Content-Length: 99999999", b"Expect: 100-continue"),
        refused(413, 417, seen=("POST / gone?",))),
    Row("body-of-exactly-the-bound", post(b"Content-Length: %d" % MIB, body=b"x" * MIB),
        served(f"POST / {MIB}")),
    # Counted as it arrives, whatever the client says of it.
    Row("chunks-too-large", chunked(b"10000\r\n" + b"x" * 65536 + b"\r\n" + b""
        .join([b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 20)),
        refused(413, seen=("POST / gone?",))),
    Row("chunk-stated-too-large", chunked(b"40000000\r\n" + b"x" * 65536 * 20),
        refused(413, 400, seen=("POST / gone?",))),
]  # fmt: skip


@table(ROWS)
def test_sizes(server: ServerProcess, row: Row) -> None:
    play(server, row)


@pytest.mark.parametrize(
    ("start", "piece", "statuses"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a" * 65536, {431}, id="h65-header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n", b"a: b\r\n" * 10_000, {431}, id="fields"),
        pytest.param(b"GET /", b"a" * 65536, {414}, id="target"),
        pytest.param(b"", b"a" * 65536, {400, 414}, id="method"),
        pytest.param(b"", b"\r\n" * 32768, {400, 431}, id="empty-lines"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"a" * 65536,
            {400, 413, 431},
            id="chunk-extension",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"a: b\r\n" * 10_000,
            {400, 413, 431},
            id="trailers",
        ),
    ],
)
def test_what_never_ends_is_cut(
    own_server: ServerProcess, start: bytes, piece: bytes, statuses: set[int]
) -> None:
    before = own_server.state().resident_bytes
    with RawClient(own_server.address) as client:
        client.send(start)
        sent = client.send_until_blocked(piece, 1024)
        # What the kernel's buffers on both sides may hold, and not the 64 MiB that we would send.
        assert sent * len(piece) < 16 * MIB
        assert client.response().status in statuses
    own_server.assert_calm()
    assert own_server.state().resident_bytes - before < MIB


def test_outcomes_can_be_told_apart() -> None:
    # The judge itself: a row that expects one thing fails on another.
    (right,) = refused(400, seen=("POST / gone?",))
    assert right.fits((400,), "closed", ())
    assert right.fits((400,), "closed", ("POST / gone",))
    assert not right.fits((400,), "closed", ("POST / 5",))
    assert not right.fits((400,), "open", ())
    assert not right.fits((400, 200), "closed", ())
    assert right != Outcome((400,), "closed")
