"""What every answer has: a date, a type, the fields that its status asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.hostile.case import get, post, request
from tests.hostile.client import RawClient, Response
from tests.hostile.process import ServerProcess


def answer(server: ServerProcess, sent: bytes, method: str = "GET") -> Response:
    with RawClient(server.address) as client:
        client.send(sent)
        return client.response(method)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(get(), 200, id="200"),
        pytest.param(get(path=b"/204-with-body"), 204, id="204"),
        pytest.param(get(path=b"/raise"), 500, id="500"),
        pytest.param(b"BAD\r\n\r\n", 400, id="400"),
        pytest.param(get(b"X: " + b"a" * 100_000), 431, id="431"),
    ],
)
def test_every_answer_has_a_date(server: ServerProcess, sent: bytes, status: int) -> None:
    # RFC 9110 section 6.6.1: a server with a clock "MUST" send Date in 2xx, 3xx and 4xx; section
    # 5.6.7: as an IMF-fixdate.
    found = answer(server, sent)
    assert found.status == status
    date = (found.header(b"date") or b"").decode()
    then = parsedate_to_datetime(date)
    assert then.strftime("%a, %d %b %Y %H:%M:%S GMT") == date
    assert abs(datetime.now(UTC) - then) < timedelta(minutes=1)


def test_a_refusal_has_a_type(server: ServerProcess) -> None:
    # RFC 9110 section 8.3: a message with content "SHOULD" have a Content-Type.
    found = answer(server, b"BAD\r\n\r\n")
    assert found.body
    assert (found.header(b"content-type") or b"").startswith(b"text/plain")


def test_204_has_no_length(server: ServerProcess) -> None:
    # RFC 9110 section 8.6: "MUST NOT send a Content-Length header field in any response with a
    # status code of 1xx (Informational) or 204 (No Content)".
    found = answer(server, get(path=b"/204-with-body"))
    assert found.status == 204
    assert found.header(b"content-length") is None
    assert found.header(b"transfer-encoding") is None


def test_100_has_no_fields(server: ServerProcess) -> None:
    found = answer(server, post(b"Content-Length: 5", b"Expect: 100-continue"))
    assert (found.status, found.headers) == (100, [])


def test_trace_gives_no_secret_back(server: ServerProcess) -> None:
    # RFC 9110 section 9.3.8: a reflection "SHOULD exclude" fields with secrets.
    secret = b"c2VjcmV0OnNlY3JldA"
    found = answer(
        server,
        request(b"TRACE / HTTP/1.1", b"Host: a", b"Authorization: Basic " + secret,
                b"Cookie: s=" + secret),
    )  # fmt: skip
    assert secret not in found.body + b"".join(value for _, value in found.headers)


@pytest.mark.parametrize("path", [b"/", b"/raise"])
def test_head_with_a_body(server: ServerProcess, path: bytes) -> None:
    # RFC 9110 section 9.3.2: content in a HEAD request means nothing; it is still no request.
    with RawClient(server.address) as client:
        client.send(
            request(b"HEAD %s HTTP/1.1" % path, b"Host: a", b"Content-Length: 5", body=b"hello")
        )
        assert client.response("HEAD").status in {200, 500}
        client.send(get(path=b"/next"))
        assert client.response().body == b"GET /next 0"
