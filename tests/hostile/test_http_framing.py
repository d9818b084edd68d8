"""Where does a request end?  Any doubt is answered with 400 and a closed connection.

Two recipients that disagree on a message's length are how requests are smuggled (RFC 9112
section 11.2), so nothing here is repaired.
"""

from __future__ import annotations

from tests.hostile.case import (
    Outcome,
    Row,
    chunked,
    play,
    post,
    refused,
    request,
    served,
    served_and_closed,
    table,
)
from tests.hostile.process import ServerProcess

HELLO = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: hostile.test\r\n\r\n"

LENGTHS = [
    # RFC 9112 section 6.3: differing or unusable lengths "MUST be treated as an unrecoverable
    # error"; equal ones may be refused too (RFC 9110 section 8.6), and refusing needs no guess.
    Row("h01-lengths-differ", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
        refused(400)),
    Row("h02-length-twice", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
        refused(400)),
    Row("h03-length-list", post(b"Content-Length: 5, 5", body=b"hello"), refused(400)),
    # RFC 9112 section 6.3: a server "ought to handle it as an error" and "MUST close".
    Row("h04-length-and-chunked",
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        refused(400)),
    Row("h04b-chunked-and-length",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        refused(400)),
    # RFC 9110 section 8.6: Content-Length = 1*DIGIT.
    Row("h13-plus", post(b"Content-Length: +5", body=b"hello"), refused(400)),
    Row("h14-minus", post(b"Content-Length: -5", body=b"hello"), refused(400)),
    Row("h15-underscore", post(b"Content-Length: 1_0", body=b"hello12345"), refused(400)),
    Row("h15b-hexadecimal", post(b"Content-Length: 0x5", body=b"hello"), refused(400)),
    Row("h15c-space-inside", post(b"Content-Length: 1 0", body=b"hello12345"), refused(400)),
    # RFC 9110 section 8.6: "a recipient MUST anticipate potentially large decimal numerals".
    Row("h16-huge", post(b"Content-Length: %d" % 2**70, body=b"hello"), refused(400, 413)),
    Row("h17-empty", post(b"Content-Length: ", body=b"hello"), refused(400)),
    Row("h18-leading-zeros", post(b"Content-Length: 0005", body=b"hello"),
        served("POST / 5") + refused(400)),
    # RFC 9112 section 6.3: no length and no coding means no body.
    Row("h19-no-length", post(), served("POST / 0")),
]  # fmt: skip

CODINGS = [
    # RFC 9112 section 6.3, rule 4: chunked is not the final coding of a request: "the server MUST
    # respond with the 400 (Bad Request) status code and then close the connection".
    Row("h05-identity", post(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello"),
        refused(400, 501)),
    Row("h06-xchunked", post(b"Transfer-Encoding: xchunked", b"Content-Length: 5", body=b"hello"),
        refused(400, 501)),
    Row("h07-chunked-identity", post(b"Transfer-Encoding: chunked, identity", body=HELLO),
        refused(400, 501)),
    # RFC 9112 section 6.1: a coding that the server does not understand "SHOULD" be 501.
    Row("h08-gzip-chunked", post(b"Transfer-Encoding: gzip, chunked", body=HELLO),
        refused(501, 400)),
    # RFC 9112 section 6.1: "A sender MUST NOT apply the chunked transfer coding more than once".
    Row("h09-chunked-twice", post(b"Transfer-Encoding: chunked, chunked", body=HELLO),
        refused(400, 501)),
    Row("h09b-two-fields",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=HELLO),
        refused(400, 501)),
    # RFC 9112 section 5.1: whitespace before the colon "MUST" be 400.
    Row("h10-space-before-colon", post(b"Transfer-Encoding : chunked", body=HELLO), refused(400)),
    Row("h11-vertical-tab", post(b"Transfer-Encoding: \x0bchunked", body=HELLO), refused(400)),
    Row("h11c-empty", post(b"Transfer-Encoding: ", body=HELLO), refused(400, 501)),
    Row("h11d-empty-elements", post(b"Transfer-Encoding: , chunked", body=HELLO),
        served("POST / 5") + refused(400, 501)),
    Row("h11e-parameter", post(b"Transfer-Encoding: chunked;q=1", body=HELLO), refused(400, 501)),
    Row("h11f-form-feed", post(b"Transfer-Encoding: chunked\x0c", body=HELLO), refused(400)),
    Row("h11g-named-with-underscore",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"hello"),
        served("POST / 5")),
    Row("h11h-length-with-underscore", post(b"Content_Length: 500"), served("POST / 0")),
    Row("h11b-quoted", post(b'Transfer-Encoding: "chunked"', body=HELLO), refused(400, 501)),
    # RFC 9112 section 6.1: in HTTP/1.0 the framing is "faulty", "even if a Content-Length is
    # present": there is nothing to process, so 400.
    Row("h12-http-1.0", request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", body=HELLO),
        refused(400)),
    # RFC 9112 section 7: "chunked" is matched without regard to case.
    Row("h12b-upper-case", post(b"Transfer-Encoding: CHUNKED", body=HELLO), served("POST / 5")),
]  # fmt: skip

BROKEN = ("POST / gone?",)

CHUNKS = [
    # RFC 9112 section 7.1: chunk-size = 1*HEXDIG; every line ends with CRLF.
    Row("h50-prefix", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
    Row("h51-plus", chunked(b"+5\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
    Row("h52-minus", chunked(b"-1\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
    Row("h53-underscore", chunked(b"1_0\r\nhello12345hello1\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    # RFC 9112 section 7.1: "Recipients MUST anticipate potentially large hexadecimal numerals".
    Row("h54-huge", chunked(b"100000000000000000\r\nhello"), refused(400, 413, seen=BROKEN)),
    Row("h55-line-feed-only", chunked(b"5\nhello\n0\n\n"), refused(400, seen=BROKEN)),
    Row("h56-no-end-of-chunk", chunked(b"5\r\nhelloXX0\r\n\r\n"), refused(400, seen=BROKEN)),
    Row("h56b-one-byte-too-many", chunked(b"5\r\nhello!\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    Row("h57-line-feed-in-extension", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    Row("h57b-empty-size", chunked(b"\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
    Row("h57c-space-before-size", chunked(b" 5\r\nhello\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    Row("h57e-nul-in-extension", chunked(b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    Row("h57f-carriage-return-in-extension", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        refused(400, seen=BROKEN)),
    # BWS after the size: RFC 9112 section 7.1.1 lets it be ignored before an extension only.
    Row("h57g-space-after-size", chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
        served("POST / 5") + refused(400, seen=BROKEN)),
    Row("h57h-line-feed-ends-trailers", chunked(b"5\r\nhello\r\n0\r\n\n"),
        refused(400, seen=BROKEN)),
    Row("h57i-line-end-in-data", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), served("POST / 4")),
    Row("h57d-carriage-return-only", chunked(b"5\rhello\r0\r\r"), refused(400, seen=BROKEN)),
    # RFC 9112 section 7.1.1: "a server ought to limit the total length of chunk extensions".
    Row("h58-extension-of-100-KB", chunked(b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"),
        refused(400, 413, 431, seen=BROKEN)),
    Row("h58b-small-extension", chunked(b"5;a=b;c\r\nhello\r\n0\r\n\r\n"), served("POST / 5")),
    Row("h58c-extensions-of-100-KB-in-all",
        chunked(b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 3_000 + b"0\r\n\r\n"),
        refused(400, 413, 431, seen=BROKEN)),
    # RFC 9112 section 7.1.2: trailers count like header fields (RFC 6585 section 5: 431).
    Row("h59-trailers-of-1-MB",
        chunked(b"5\r\nhello\r\n0\r\n" + b"X-Trailer: %s\r\n" % (b"a" * 1000) * 1000 + b"\r\n"),
        refused(431, 400, 413, seen=BROKEN)),
    # RFC 9110 section 6.5.1: a field for framing "MUST NOT" be taken from a trailer: it is ignored
    # or refused, but never obeyed.
    Row("h60-length-in-trailer", chunked(b"5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n"),
        served("POST / 5") + refused(400, seen=BROKEN)),
    Row("h60b-bad-trailer", chunked(b"5\r\nhello\r\n0\r\nno colon\r\n\r\n"),
        refused(400, seen=BROKEN)),
    Row("h60c-trailer", chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), served("POST / 5")),
    Row("h60d-empty-body", chunked(b"0\r\n\r\n"), served("POST / 0")),
    Row("h60e-leading-zeros", chunked(b"005\r\nhello\r\n000\r\n\r\n"), served("POST / 5")),
]  # fmt: skip

NEXT = [
    # The bytes after a request are the next request, and only that.
    Row("body-then-request", post(b"Content-Length: 5", body=b"hello" + SMUGGLED),
        served("POST / 5", "GET /smuggled 0", statuses=(200, 200))),
    Row("chunks-then-request", chunked(HELLO + SMUGGLED),
        served("POST / 5", "GET /smuggled 0", statuses=(200, 200))),
    # A body that is longer than it says is a broken next request.
    Row("body-longer-than-stated", post(b"Content-Length: 5", body=b"hello!!\r\n\r\n"),
        (Outcome((200, 400), "closed", ("POST / 5",)),)),
    Row("get-with-body",
        request(b"GET / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"hello"),
        served("GET / 5")),
    # RFC 9112 section 9.3: HTTP/1.0 without keep-alive closes after the answer.
    Row("http-1.0-closes", request(b"POST / HTTP/1.0", b"Content-Length: 5", body=b"hello"),
        served_and_closed("POST / 5")),
]  # fmt: skip


@table(LENGTHS + CODINGS + CHUNKS + NEXT)
def test_framing(server: ServerProcess, row: Row) -> None:
    play(server, row)
