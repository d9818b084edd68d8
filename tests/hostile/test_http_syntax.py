"""Request lines and header fields that break the grammar, or that sit on its edge."""

from __future__ import annotations

import os

from tests.hostile.case import (
    Row,
    get,
    play,
    refused,
    request,
    served,
    served_and_closed,
    table,
)
from tests.hostile.process import ServerProcess

LINES = [
    # RFC 9112 section 2.2: a lone LF "MAY" end a line; the strict reader does not take it, because
    # the proxy before it may not.
    Row("h20-line-feeds-only", b"GET / HTTP/1.1\nHost: a\n\n", refused(400)),
    Row("h21-one-line-feed", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", refused(400)),
    # RFC 9112 section 2.2: a bare CR "MUST" be invalid or replaced by SP.
    Row("h22-carriage-return-in-value", get(b"X: a\rb"), refused(400)),
    # RFC 9110 section 5.5: CR, LF, NUL in a value "MUST" be refused or replaced.
    Row("h23-nul-in-value", get(b"X: a\0b"), refused(400)),
    Row("h24-vertical-tab-in-value", get(b"X: a\x0bb"), refused(400)),
    # RFC 9112 section 5.2: obs-fold "MUST" be refused with 400 or replaced.
    Row("h25-folded-line", get(b"X: a", b" b"), refused(400)),
    # RFC 9110 section 5.1: field-name = token.
    Row("h26-space-in-name", get(b"X Y: a"), refused(400)),
    Row("h27-no-colon", get(b"NoColon"), refused(400)),
    Row("h28-empty-name", get(b": a"), refused(400)),
    # RFC 9112 section 2.2: whitespace between start line and first field: reject, or consume.
    Row("h29-space-before-first-field", request(b"GET / HTTP/1.1", b" X: a", b"Host: a"),
        refused(400)),
    Row("h29b-8-bit-in-value", get(b"X: caf\xe9"), served("GET / 0")),
    Row("h29c-tab-in-value", get(b"X: a\tb"), served("GET / 0")),
    Row("h29d-empty-value", get(b"X:"), served("GET / 0")),
]  # fmt: skip

HOSTS = [
    # RFC 9112 section 3.2: no Host in HTTP/1.1, more than one, or an invalid one: "MUST" be 400.
    Row("h30-no-host", request(b"GET / HTTP/1.1", b"X: a"), refused(400)),
    Row("h31-two-hosts", request(b"GET / HTTP/1.1", b"Host: a", b"Host: b"), refused(400)),
    Row("h31b-same-host-twice", request(b"GET / HTTP/1.1", b"Host: a", b"Host: a"), refused(400)),
    # RFC 9110 section 7.2: Host = uri-host [ ":" port ].
    Row("h32-space-in-host", request(b"GET / HTTP/1.1", b"Host: a b"), refused(400)),
    Row("h32b-path-in-host", request(b"GET / HTTP/1.1", b"Host: a/b@c"), refused(400)),
    Row("h32c-port-is-no-number", request(b"GET / HTTP/1.1", b"Host: a:b"), refused(400)),
    Row("h32d-two-in-one", request(b"GET / HTTP/1.1", b"Host: a, b"), refused(400)),
    Row("h32i-user-in-host", request(b"GET / HTTP/1.1", b"Host: user@a"), refused(400)),
    Row("h32j-bad-escape-in-host", request(b"GET / HTTP/1.1", b"Host: a%zz"), refused(400)),
    Row("h32k-no-ipv6-address", request(b"GET / HTTP/1.1", b"Host: [::1::]"), refused(400)),
    Row("h32l-ipv6-zone", request(b"GET / HTTP/1.1", b"Host: [fe80::1%25eth0]"), refused(400)),
    Row("h32m-text-after-ipv6", request(b"GET / HTTP/1.1", b"Host: [::1]x"), refused(400)),
    Row("h32n-half-an-ipv6-host", request(b"GET / HTTP/1.1", b"Host: [::1"), refused(400)),
    Row("h32o-escape-in-host", request(b"GET / HTTP/1.1", b"Host: a%20b"),
        served("GET / 0") + refused(400)),
    Row("h32p-future-address", request(b"GET / HTTP/1.1", b"Host: [v1.a:b]"),
        served("GET / 0") + refused(400)),
    Row("h32q-ipv6-in-ipv4-form", request(b"GET / HTTP/1.1", b"Host: [::ffff:1.2.3.4]:80"),
        served("GET / 0")),
    # RFC 9112 section 3.2: an empty Host is what a target without authority asks for.
    Row("h32e-empty-host", request(b"GET / HTTP/1.1", b"Host:"), served("GET / 0") + refused(400)),
    Row("h32f-host-with-port", request(b"GET / HTTP/1.1", b"Host: a:8000"), served("GET / 0")),
    Row("h32g-ipv6-host", request(b"GET / HTTP/1.1", b"Host: [::1]:8000"), served("GET / 0")),
    # HTTP/1.0 knew no Host.
    Row("h32h-http-1.0-without-host", request(b"GET / HTTP/1.0"), served_and_closed("GET / 0")),
]  # fmt: skip

REQUEST_LINES = [
    # HTTP/0.9 is not spoken: an answer without a status line is never right.
    Row("h33-http-0.9", b"GET /\r\n", refused(400, 505)),
    Row("h33b-http-0.9-and-empty-line", b"GET /\r\n\r\n", refused(400, 505)),
    # RFC 9110 section 2.5 lets a higher minor version pass as 1.1; refusing it is safe as well.
    Row("h34-http-1.2", request(b"GET / HTTP/1.2", b"Host: a"),
        served("GET / 0") + refused(400, 505)),
    # RFC 9110 section 15.6.6: another major version is 505.
    Row("h35-http-2.0-in-text", request(b"GET / HTTP/2.0", b"Host: a"), refused(505, 400)),
    Row("h35b-http-9.9", request(b"GET / HTTP/9.9", b"Host: a"), refused(505, 400)),
    # RFC 9112 section 2.3: HTTP-name is case-sensitive.
    Row("h36-lower-case-version", request(b"GET / http/1.1", b"Host: a"), refused(400, 505)),
    Row("h37-method-is-no-token", request(b"GE(T / HTTP/1.1", b"Host: a"), refused(400, 501)),
    # RFC 9112 section 3: single SP between the parts; an invalid line "SHOULD" be 400.
    Row("h38-two-spaces", request(b"GET  / HTTP/1.1", b"Host: a"), refused(400)),
    Row("h38b-tab", request(b"GET\t/ HTTP/1.1", b"Host: a"), refused(400)),
    Row("h38c-space-at-end", request(b"GET / HTTP/1.1 ", b"Host: a"), refused(400)),
    Row("h38d-space-in-target", request(b"GET /a b HTTP/1.1", b"Host: a"), refused(400)),
    Row("h38e-no-target", request(b"GET HTTP/1.1", b"Host: a"), refused(400)),
    Row("h38f-relative-target", request(b"GET index HTTP/1.1", b"Host: a"), refused(400)),
    Row("h38h-authority-form", request(b"GET a:80 HTTP/1.1", b"Host: a:80"), refused(400)),
    # RFC 9110 section 4.2.1: an empty host "MUST" be rejected; 4.2.4: so ought user information.
    Row("h38i-absolute-without-host", request(b"GET http:///x HTTP/1.1", b"Host: a"),
        refused(400)),
    Row("h38j-absolute-with-user", request(b"GET http://user@a/x HTTP/1.1", b"Host: a"),
        refused(400)),
    Row("h38k-absolute-of-another-scheme", request(b"GET ftp://a/x HTTP/1.1", b"Host: a"),
        refused(400, 421)),
    Row("h38l-absolute-without-host-field", request(b"GET http://a/x HTTP/1.1"), refused(400)),
    Row("h38m-options-with-absolute-target", request(b"OPTIONS http://a HTTP/1.1", b"Host: a"),
        served("OPTIONS / 0") + served("OPTIONS * 0")),
    Row("h38n-two-slashes", request(b"GET //b/x HTTP/1.1", b"Host: a"), served("GET //b/x 0")),
    Row("h38g-lower-case-method", request(b"get / HTTP/1.1", b"Host: a"),
        refused(400, 501) + served("get / 0")),
    # RFC 3986: a target is ASCII without control characters.
    Row("h39-8-bit-path", request(b"GET /caf\xe9 HTTP/1.1", b"Host: a"), refused(400)),
    Row("h40-nul-in-path", request(b"GET /a\0b HTTP/1.1", b"Host: a"), refused(400)),
    Row("h40b-fragment", request(b"GET /a#b HTTP/1.1", b"Host: a"), refused(400)),
    Row("h40c-bad-escape", request(b"GET /a%zz HTTP/1.1", b"Host: a"),
        served("GET /a%zz 0") + refused(400)),
    Row("h40d-escaped-nul", request(b"GET /a%00b HTTP/1.1", b"Host: a"),
        served("GET /a%00b 0") + refused(400)),
    # RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line" before a request.
    Row("h41-empty-lines-first", b"\r\n\r\n\r\n" + get(), served("GET / 0") + refused(400)),
    Row("h41b-one-empty-line-first", b"\r\n" + get(), served("GET / 0")),
]  # fmt: skip

#: The head of a TLS 1.2 ClientHello.
TLS_HELLO = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(154))
#: RFC 9113 section 3.4: the preface that a client sends who takes this for HTTP/2.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

OTHER_PROTOCOLS = [
    # Nothing that is not HTTP keeps a connection waiting.
    Row("h42-tls-on-plain-port", TLS_HELLO, refused(400)),
    Row("h43-binary", bytes(range(256)), refused(400)),
    Row("h43b-http2-preface", HTTP2_PREFACE, refused(400, 505)),
    Row("h43c-smtp", b"EHLO example.com\r\n", refused(400)),
    Row("h43d-response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", refused(400)),
    Row("h43e-random", os.urandom(64).replace(b"\r", b"?").replace(b"\n", b"?") + b"\r\n\r\n",
        refused(400)),
]  # fmt: skip


@table(LINES + HOSTS + REQUEST_LINES + OTHER_PROTOCOLS)
def test_syntax(server: ServerProcess, row: Row) -> None:
    play(server, row)
