"""The life of a connection: half-closed, pipelined, upgraded, reset, left alone."""

from __future__ import annotations

import pytest

from tests.hostile.case import (
    Act,
    Outcome,
    Row,
    cut_off,
    get,
    play,
    post,
    refused,
    request,
    served,
    served_and_closed,
    table,
)
from tests.hostile.client import RawClient
from tests.hostile.process import ServerProcess

OPTIONS = {"timeouts": {"close_timeout": 0.3}}

ROWS = [
    # RFC 9112 section 9.6 lets either side close half; the answer is still wanted.
    Row("h70-half-close-after-get", (get(), Act.HALF_CLOSE), served_and_closed("GET / 0")),
    Row("h70b-half-close-after-two", (get() + get(path=b"/b"), Act.HALF_CLOSE),
        served_and_closed("GET / 0", "GET /b 0", statuses=(200, 200))),
    # RFC 9112 section 8: an incomplete request is never handled as a whole one.
    Row("h71-half-close-in-body",
        (post(b"Content-Length: 10", body=b"hello"), Act.HALF_CLOSE),
        cut_off("POST / gone?")),
    Row("h71b-half-close-in-chunk",
        (post(b"Transfer-Encoding: chunked", body=b"a\r\nhello"), Act.HALF_CLOSE),
        cut_off("POST / gone?")),
    Row("h71c-half-close-in-head", (b"GET / HT", Act.HALF_CLOSE),
        cut_off()),
    Row("h71d-half-close-at-once", (b"", Act.HALF_CLOSE), (Outcome((), "closed"),)),
    # RFC 9112 section 9.3.2: pipelined answers come in the order of the requests.
    Row("h72-pipeline-of-50", b"".join(get(path=b"/%d" % n) for n in range(50)),
        served(*(f"GET /{n} 0" for n in range(50)), statuses=(200,) * 50)),
    # RFC 9112 section 9.6: nothing is read after a request with the close option.
    Row("h73-pipeline-after-close", get(b"Connection: close") + get(path=b"/second"),
        served_and_closed("GET / 0")),
    Row("h73b-error-ends-the-pipeline", get() + b"BAD\r\n\r\n" + get(path=b"/third"),
        (Outcome((200, 400), "closed", ("GET / 0",)),)),
    # RFC 9110 section 10.1.1.
    Row("h74-expect-continue",
        (post(b"Content-Length: 5", b"Expect: 100-continue"), Act.AWAIT_ANSWER, b"hello"),
        served("POST / 5", statuses=(100, 200))),
    Row("h74b-body-comes-unasked",
        post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"),
        served("POST / 5") + served("POST / 5", statuses=(100, 200))),
    # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore" it.
    Row("h74c-http-1.0",
        request(b"POST / HTTP/1.0", b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"),
        served_and_closed("POST / 5")),
    Row("h74d-no-body", get(b"Expect: 100-continue"),
        served("GET / 0") + served("GET / 0", statuses=(100, 200))),
    # "MAY respond with a 417".
    Row("h75-other-expectation", get(b"Expect: a-miracle"),
        served("GET / 0") + served(statuses=(417,)) + refused(417)),
    # RFC 9113 appendix B: the upgrade to h2c is obsolete; RFC 9110 section 7.8: ignored.
    Row("h76-upgrade-to-h2c",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        served("GET / 0")),
    Row("h76b-upgrade-to-nothing-known", get(b"Connection: upgrade", b"Upgrade: irc/6.9"),
        served("GET / 0")),
    # RFC 9110 section 9.3.6: an origin server has no tunnel to offer; after a 2xx every byte
    # would belong to it.
    Row("h77-connect", request(b"CONNECT evil.test:80 HTTP/1.1", b"Host: evil.test:80"),
        refused(501, 405, 400)),
    Row("h77b-connect-with-path", request(b"CONNECT / HTTP/1.1", b"Host: evil.test:80"),
        refused(501, 405, 400)),
    # RFC 9112 section 3.2.2: absolute-form "MUST" be accepted.
    Row("h78-absolute-form", request(b"GET http://evil.test/x?y HTTP/1.1", b"Host: hostile.test"),
        served("GET /x?y 0")),
    Row("h78b-absolute-without-path", request(b"GET http://evil.test HTTP/1.1", b"Host: a"),
        served("GET / 0")),
    # RFC 9112 section 3.2.4: asterisk-form, only for OPTIONS.
    Row("h79-options-asterisk", request(b"OPTIONS * HTTP/1.1", b"Host: a"),
        served("OPTIONS * 0")),
    Row("h79b-get-asterisk", request(b"GET * HTTP/1.1", b"Host: a"), refused(400)),
    # RFC 9112 section 9.3: an HTTP/1.0 client asks for persistence; the server may grant it.
    Row("http-1.0-keep-alive", request(b"GET / HTTP/1.0", b"Connection: keep-alive"),
        served("GET / 0") + served_and_closed("GET / 0")),
    Row("close-among-options", get(b"Connection: x-hop, Close"), served_and_closed("GET / 0")),
    # A body that the application left unread never becomes the next request.
    Row("early-answer-body-there",
        request(b"POST /early HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"hello"),
        served() + served_and_closed()),
    Row("early-answer-expectation-open",
        request(b"POST /early HTTP/1.1", b"Host: a", b"Content-Length: 5", b"Expect: 100-continue"),
        served_and_closed()),
]  # fmt: skip


@table(ROWS)
def test_connection(server: ServerProcess, row: Row) -> None:
    play(server, row)


def test_rest_of_an_unread_body_is_no_request(server: ServerProcess) -> None:
    # RFC 9112 section 9.3: the server reads the whole body, or closes after its answer.
    body = get(path=b"/smuggled") * 50
    with RawClient(server.address) as client:
        head = (b"POST /early HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body))
        client.send(request(*head, body=body[:5]))
        assert client.response().status == 200
        client.send(body[5:] + get(path=b"/next"))
        rest = client.buffer if not client.read_some() else client.response().body
        assert rest in {b"", b"GET /next 0"}
        assert server.seen(client.port) in ([], ["GET /next 0"])


def test_target_overrules_host(server: ServerProcess) -> None:
    # RFC 9112 section 3.2.2: an origin server "MUST ignore the received Host header field (if
    # any) and instead use the host information of the request-target".
    with RawClient(server.address) as client:
        client.send(request(b"GET http://evil.test:81/headers HTTP/1.1", b"Host: hostile.test"))
        hosts = [line for line in client.response().body.split(b"\n") if line[:5] == b"host="]
    assert hosts == [b"host=evil.test:81"]


def test_head_has_no_body(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(request(b"HEAD / HTTP/1.1", b"Host: a") + get(path=b"/next"))
        assert client.response("HEAD").header(b"content-length") == b"8"
        assert client.response().body == b"GET /next 0"


def test_refusal_says_that_it_closes(server: ServerProcess) -> None:
    # RFC 9112 section 9.6: the server that closes "SHOULD" say so in its last answer.
    with RawClient(server.address) as client:
        client.send(b"BAD\r\n\r\n")
        answer = client.response()
        assert (answer.status, answer.announces_close) == (400, True)
        assert client.read_to_end() == b""


def test_pipelined_answers_keep_their_order(server: ServerProcess) -> None:
    # The later ones are ready first: CVE-2023-46137 and CVE-2024-41671 were just that.
    with RawClient(server.address) as client:
        for n in range(1000):
            paths = [b"/slow?%d" % n, b"/a?%d" % n, b"/slow?b%d" % n, b"/c?%d" % n]
            client.send(b"".join(get(path=path) for path in paths))
            answers = [client.response().body for _ in paths]
            assert answers == [b"GET %s 0" % path for path in paths]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_application_hears_that_the_client_went(server: ServerProcess, how: str) -> None:
    with RawClient(server.address) as client:
        client.send(get(path=b"/wait"))
        server.sees(client.port, "waits")
        client.reset() if how == "reset" else client.socket.close()
        server.sees(client.port, "waits", "http.disconnect")


def test_reset_in_body(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(
            request(b"POST / HTTP/1.1", b"Host: a", b"Expect: 100-continue", b"Content-Length: 9")
        )
        assert client.response().status == 100
        client.send(b"hello")
        client.reset()
        server.sees(client.port, "POST / gone")


def test_deaf_application_is_cancelled_when_its_client_went(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(get(path=b"/hang"))
        server.sees(client.port, "hangs")
        client.reset()
        server.sees(client.port, "hangs", "cancelled")


def test_upload_waits_for_the_application(own_server: ServerProcess) -> None:
    # An application that does not read: the socket is not read either.
    before = own_server.state().resident_bytes
    with RawClient(own_server.address) as client:
        client.send(
            request(b"POST /never-read HTTP/1.1", b"Host: a", b"Content-Length: %d" % (1 << 28))
        )
        own_server.sees(client.port, "begun")
        assert client.send_until_blocked(b"x" * 65536, 4096, patience_seconds=0.2) < 256
        assert own_server.state().resident_bytes - before < 2 << 20
        assert client.response().body == b"ok"
    own_server.assert_calm()


def test_pipeline_flood_waits_for_the_first_answer(own_server: ServerProcess) -> None:
    before = own_server.state().resident_bytes
    with RawClient(own_server.address) as client:
        client.send(get(path=b"/in-flight"))
        own_server.sees(client.port, "begun")
        sent = client.send_until_blocked(get(path=b"/again") * 1000, 2000, patience_seconds=0.2)
        assert sent < 400
        assert own_server.state().resident_bytes - before < 2 << 20
    own_server.assert_calm()
