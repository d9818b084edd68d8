"""Requests inside requests: whatever a length or a coding says, nothing hidden is ever served.

RFC 9112 section 11.2: where two recipients disagree on the end of a message, a second request can
be hidden in the first.  Each row hides `GET /smuggled` and sends `GET /after` behind it; the
application may see the outer request, never the hidden one.
"""

from __future__ import annotations

from tests.hostile.case import (
    Outcome,
    Row,
    chunked,
    get,
    play,
    post,
    refused,
    request,
    served,
    table,
    under,
)
from tests.hostile.process import ServerProcess

BROKEN = ("POST / gone?",)
SMUGGLED = get(path=b"/smuggled")
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
AFTER = get(path=b"/after")
#: An empty body in chunks, and then the hidden request.
HIDDEN = b"0\r\n\r\n" + SMUGGLED
LENGTH = b"Content-Length: %d" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked"


def both(coding: bytes, length: bytes = LENGTH) -> bytes:
    """Length and coding in one request, which disagree."""
    return post(length, coding, body=HIDDEN) + AFTER


BOTH = under(
    "MUST, RFC 9112 section 6.1: with both Content-Length and Transfer-Encoding: 400 or chunked "
    "alone, and close in any case",
    Row("both-and-pipelined", post(b"Content-Length: 4", CHUNKED, body=HIDDEN) + AFTER,
        refused(400)),
    Row("both-with-length-of-all", both(CHUNKED), refused(400)),
    Row("both-and-close", post(LENGTH, CHUNKED, b"Connection: close", body=HIDDEN) + AFTER,
        refused(400)),
    Row("both-and-keep-alive",
        post(LENGTH, CHUNKED, b"Connection: keep-alive", body=HIDDEN) + AFTER, refused(400)),
    Row("both-with-hidden-head",
        post(b"Content-Length: 60", CHUNKED,
             body=b"0\r\n\r\n" + request(b"HEAD /smuggled HTTP/1.1", b"Host: a")) + AFTER,
        refused(400)),
    Row("both-coding-first", post(CHUNKED, LENGTH, body=HIDDEN) + AFTER, refused(400)),
    Row("both-coding-first-and-close",
        post(CHUNKED, b"Content-Length: 4", b"Connection: close", body=HIDDEN) + AFTER,
        refused(400)),
    Row("both-length-of-the-size-line",
        post(CHUNKED, b"Content-Length: 4",
             body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)) + AFTER,
        refused(400)),
    Row("both-length-with-plus", both(CHUNKED, b"Content-Length: +99"), refused(400)),
    Row("both-length-with-letter", both(CHUNKED, b"Content-Length: 99x"), refused(400)),
    Row("both-length-of-zero", both(CHUNKED, b"Content-Length: 0"), refused(400)),
    Row("both-with-mixed-case", both(b"Transfer-Encoding: Chunked"), refused(400)),
    Row("both-with-leading-comma", both(b"Transfer-Encoding: , chunked"), refused(400)),
    Row("both-with-trailing-comma", both(b"Transfer-Encoding: chunked,"), refused(400)),
    Row("both-with-trailing-space", both(b"Transfer-Encoding: chunked "), refused(400)),
    Row("both-with-tab", both(b"Transfer-Encoding:\tchunked"), refused(400)),
    Row("both-with-folded-line", both(b"Transfer-Encoding:\r\n chunked"), refused(400)),
    Row("both-with-space-before-colon", both(b"Transfer-Encoding : chunked"), refused(400)),
    Row("both-with-empty-coding", both(b"Transfer-Encoding:"), refused(400, 501)),
    Row("both-with-two-codings",
        post(LENGTH, CHUNKED, b"Transfer-Encoding: identity", body=HIDDEN) + AFTER,
        refused(400, 501)),
    Row("both-with-chunked-twice", post(LENGTH, CHUNKED, CHUNKED, body=HIDDEN) + AFTER,
        refused(400, 501)),
    Row("both-of-a-get",
        request(b"GET / HTTP/1.1", b"Host: a", LENGTH, CHUNKED, body=HIDDEN) + AFTER,
        refused(400)),
    Row("both-in-http-1.0", request(b"POST / HTTP/1.0", LENGTH, CHUNKED, body=HIDDEN) + AFTER,
        refused(400)),
)  # fmt: skip

CODINGS = [
    *under("MUST, RFC 9112 section 6.3: without chunked as the last coding the answer is 400",
        Row("unknown-coding-alone", post(b"Transfer-Encoding: xchunked", body=HELLO),
            refused(501, 400)),
        Row("identity-alone", post(b"Transfer-Encoding: identity", body=b"hello"),
            refused(501, 400)),
        Row("chunked-then-gzip", post(b"Transfer-Encoding: chunked, gzip", body=HELLO),
            refused(400, 501)),
        Row("chunked-and-semicolon", post(b"Transfer-Encoding: chunked;", body=HELLO),
            refused(400, 501)),
        Row("two-words", post(b"Transfer-Encoding: x chunked", body=HELLO), refused(400, 501)),
        Row("chunked-in-8-bit", post(b"Transfer-Encoding: chun\xe7ked", body=HELLO),
            refused(400, 501)),
    ),
    *under("MUST, RFC 9110 section 5.6.1: empty elements of a list are ignored, or refused",
        Row("comma-after-chunked", post(b"Transfer-Encoding: chunked,", body=HELLO),
            served("POST / 5") + refused(400, 501)),
        Row("comma-alone", post(b"Transfer-Encoding: ,", body=HELLO), refused(400, 501)),
    ),
    *under("MUST, RFC 9112 section 7: codings are compared without case",
        Row("chunked-with-a-capital", post(b"Transfer-Encoding: Chunked", body=HELLO),
            served("POST / 5")),
    ),
]  # fmt: skip

LENGTHS = [
    *under("MUST, RFC 9112 section 6.3: an invalid Content-Length is 400 and a close",
        Row("length-of-letters", post(b"Content-Length: abc", body=b"hello"), refused(400)),
        Row("length-with-letter", post(b"Content-Length: 5a", body=b"hello"), refused(400)),
        Row("lengths-in-a-list-differ", post(b"Content-Length: 5, 6", body=b"hello!"),
            refused(400)),
        Row("three-lengths-in-a-list", post(b"Content-Length: 5, 5, 5", body=b"hello"),
            refused(400) + served("POST / 5")),
        Row("length-and-comma", post(b"Content-Length: 5,", body=b"hello"), refused(400)),
        Row("negative-zero", post(b"Content-Length: -0"), refused(400)),
        Row("octal-prefix", post(b"Content-Length: 0o5", body=b"hello"), refused(400)),
        Row("fraction", post(b"Content-Length: 5.0", body=b"hello"), refused(400)),
        Row("exponent", post(b"Content-Length: 5e0", body=b"hello"), refused(400)),
        Row("quoted-length", post(b'Content-Length: "5"', body=b"hello"), refused(400)),
        Row("full-width-digit", post("Content-Length: \uff15".encode(), body=b"hello"),
            refused(400)),
        Row("length-of-2-to-the-64", post(b"Content-Length: %d" % (2**64 + 5), body=b"hello"),
            refused(400, 413)),
        Row("length-of-40-digits", post(b"Content-Length: " + b"9" * 40, body=b"hello"),
            refused(400, 413)),
        Row("lengths-differ-with-hidden-request",
            post(b"Content-Length: 5", b"Content-Length: %d" % (5 + len(SMUGGLED)),
                 body=b"hello" + SMUGGLED) + AFTER,
            refused(400)),
        Row("lengths-differ-longer-first",
            post(b"Content-Length: %d" % (5 + len(SMUGGLED)), b"Content-Length: 5",
                 body=b"hello" + SMUGGLED) + AFTER,
            refused(400)),
    ),
    *under("SHOULD, RFC 9110 section 8.6: leading zeros are decimal, if they are taken at all",
        Row("two-zeros", post(b"Content-Length: 00"), served("POST / 0") + refused(400)),
        Row("zeros-are-not-octal", post(b"Content-Length: 010", body=b"0123456789"),
            served("POST / 10") + refused(400)),
    ),
    *under("MUST, RFC 9112 section 6.2: the length alone tells where the body ends",
        Row("length-of-zero", post(b"Content-Length: 0"), served("POST / 0")),
        Row("body-is-a-request",
            post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED) + AFTER,
            served(f"POST / {len(SMUGGLED)}", "GET /after 0", statuses=(200, 200))),
        Row("body-is-half-a-request",
            post(b"Content-Length: 30", body=b"GET /smuggled HTTP/1.1\r\nHost: a"[:30]) + AFTER,
            served("POST / 30", "GET /after 0", statuses=(200, 200))),
        Row("length-of-zero-and-a-body", post(b"Content-Length: 0", body=b"hello\r\n\r\n"),
            (Outcome((200, 400), "closed", ("POST / 0",)),)),
        Row("get-with-body-then-request",
            request(b"GET / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"hello") + AFTER,
            served("GET / 5", "GET /after 0", statuses=(200, 200))),
        Row("get-with-half-a-request-for-body",
            request(b"GET / HTTP/1.1", b"Host: a", b"Content-Length: 29",
                    body=b"GET /smuggled HTTP/1.1\r\nX-a: ") + AFTER,
            served("GET / 29", "GET /after 0", statuses=(200, 200))),
        Row("options-with-body-then-request",
            request(b"OPTIONS / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"hello") + AFTER,
            served("OPTIONS / 5", "GET /after 0", statuses=(200, 200))),
        Row("delete-with-body-then-request",
            request(b"DELETE / HTTP/1.1", b"Host: a", b"Content-Length: 5", body=b"hello") + AFTER,
            served("DELETE / 5", "GET /after 0", statuses=(200, 200))),
        Row("expectation-and-body-then-request",
            post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello") + AFTER,
            served("POST / 5", "GET /after 0", statuses=(200, 200))
            + served("POST / 5", "GET /after 0", statuses=(100, 200, 200))),
    ),
]  # fmt: skip

CHUNKS = [
    *under("MUST, RFC 9112 section 7.1: a server reads chunks",
        Row("three-chunks", chunked(b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"),
            served("POST / 11")),
        Row("size-in-capitals", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), served("POST / 10")),
        Row("size-in-small-letters", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"),
            served("POST / 10")),
        Row("body-is-a-last-chunk", chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), served("POST / 5")),
        Row("many-zeros", chunked(b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
            served("POST / 5") + refused(400, seen=BROKEN)),
        Row("several-zeros-end-it", chunked(b"5\r\nhello\r\n0000\r\n\r\n") + AFTER,
            served("POST / 5", "GET /after 0", statuses=(200, 200))),
    ),
    *under("MUST, RFC 9112 section 7.1: chunk = size [ extension ] CRLF data CRLF",
        Row("size-of-a-letter-beyond-f", chunked(b"g\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("size-0x-and-hidden-request", chunked(b"0x5\r\nhello\r\n" + HIDDEN),
            refused(400, seen=BROKEN)),
        Row("bad-size-and-hidden-request", chunked(b"+0\r\n\r\n" + SMUGGLED),
            refused(400, seen=BROKEN)),
        Row("size-of-minus-zero", chunked(b"-0\r\n\r\n" + SMUGGLED), refused(400, seen=BROKEN)),
        Row("size-with-point", chunked(b"5.0\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
        Row("two-bytes-too-many", chunked(b"5\r\nhello!!\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("data-ends-in-line-feed", chunked(b"5\r\nhello\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("data-ends-in-carriage-return", chunked(b"5\r\nhello\r0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("data-ends-in-line-feed-and-return", chunked(b"5\r\nhello\n\r0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("last-chunk-ends-in-line-feed", chunked(b"5\r\nhello\r\n0\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("size-of-2-to-the-64", chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
            refused(400, 413, seen=BROKEN)),
        Row("tab-before-size", chunked(b"\t5\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
        Row("tab-after-size", chunked(b"5\t\r\nhello\r\n0\r\n\r\n"),
            served("POST / 5") + refused(400, seen=BROKEN)),
        Row("nul-after-size", chunked(b"5\0\r\nhello\r\n0\r\n\r\n"), refused(400, seen=BROKEN)),
        Row("words-after-size", chunked(b"5 hello\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
    ),
    # Rows of bad extensions end before the data: the refusal waits for nothing.
    *under("MUST, RFC 9112 section 7.1.1: chunk-ext = *( BWS ; BWS name [ BWS = BWS value ] )",
        Row("extension-without-name", chunked(b"5;\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-of-blanks", chunked(b"5; \r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-with-two-semicolons", chunked(b"5;;a\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-with-last-semicolon", chunked(b"5;a;\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-name-is-no-token", chunked(b"5;a[b]\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-name-with-space", chunked(b"5;a b\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-name-8-bit", chunked(b"5;caf\xe9\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-value-is-missing", chunked(b"5;a=\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-name-is-missing", chunked(b"5;=b\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-value-is-no-token", chunked(b"5;a=b/c\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-with-two-values", chunked(b"5;a=b=c\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-quote-is-open", chunked(b'5;a="b\r\nhello\r\n0\r\n\r\n'),
            refused(400, seen=BROKEN)),
        Row("extension-text-after-quote", chunked(b'5;a="b"c\r\nhello\r\n0\r\n\r\n'),
            refused(400, seen=BROKEN)),
        Row("extension-control-character", chunked(b"5;a=\x01\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-delete", chunked(b"5;a\x7f\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
        Row("extension-without-semicolon", chunked(b"5 a=b\r\nhello\r\n0\r\n\r\n"),
            refused(400, seen=BROKEN)),
    ),
    *under("MUST, RFC 9112 section 7.1.1: extensions that are not understood are ignored",
        Row("extension-with-quoted-value", chunked(b'5;a="b, \\"c;\xe9"\r\nhello\r\n0\r\n\r\n'),
            served("POST / 5")),
        Row("extension-with-empty-quotes", chunked(b'5;a=""\r\nhello\r\n0\r\n\r\n'),
            served("POST / 5")),
        Row("extensions-with-blanks", chunked(b"5 ; a = b\t;c\r\nhello\r\n0\r\n\r\n"),
            served("POST / 5")),
        Row("extension-of-the-last-chunk", chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"),
            served("POST / 5")),
    ),
]  # fmt: skip


def trailer(field: bytes) -> bytes:
    return chunked(b"5\r\nhello\r\n0\r\n" + field + b"\r\n\r\n") + AFTER


KEPT = served("POST / 5", "GET /after 0", statuses=(200, 200)) + refused(400, seen=BROKEN)

TRAILERS = under(
    "MUST NOT, RFC 9110 section 6.5.1: no trailer decides about framing, routing or access",
    Row("trailer-coding", trailer(b"Transfer-Encoding: chunked"), KEPT),
    Row("trailer-host", trailer(b"Host: evil.test"), KEPT),
    Row("trailer-authorization", trailer(b"Authorization: Basic YTpi"), KEPT),
    Row("trailer-content-type", trailer(b"Content-Type: text/evil"), KEPT),
    Row("trailer-connection", trailer(b"Connection: close"), KEPT),
    Row("trailer-forwarded", trailer(b"X-Forwarded-For: 6.6.6.6"), KEPT),
    Row("trailer-with-space-before-colon", trailer(b"X : a"), refused(400, seen=BROKEN)),
    Row("trailer-with-nul", trailer(b"X: a\0"), refused(400, seen=BROKEN)),
    Row("trailer-with-carriage-return", trailer(b"X: a\rb"), refused(400, seen=BROKEN)),
    Row("trailer-without-name", trailer(b": a"), refused(400, seen=BROKEN)),
)  # fmt: skip


@table(BOTH + CODINGS + LENGTHS + CHUNKS + TRAILERS)
def test_smuggling(server: ServerProcess, row: Row) -> None:
    play(server, row)
