"""Requests in which a client says of itself what only the proxy may say, or hides a second one."""

from __future__ import annotations

from tests.hostile.case import get, post, request
from tests.hostile.frames import handshake

EVIL = b"6.6.6.6"
AFTER = get(path=b"/after")
SMUGGLED = get(path=b"/smuggled")

#: Fields that a client may try to pass off as the proxy's.
FIELDS = [
    b"X-Forwarded-For: " + EVIL,
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-For: unix",
    b"X-Forwarded-For: ",
    b"X-Forwarded-For: " + EVIL + b", 127.0.0.1",
    b"X-Forwarded-For: \xff\x80",
    b"X-Forwarded-For: " + b"1.2.3.4, " * 500,
    b"X-Forwarded-Port: 1",
    b"X-Forwarded-Port: 99999",
    b"X-Forwarded-Port: abc",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Proto: ws",
    b"X-Forwarded-Proto: https, http",
    b"X-Forwarded-Proto: javascript",
    b"X-Forwarded-Host: evil.test",
    b"X-Forwarded-Prefix: /evil",
    b"X-Forwarded-Server: evil.test",
    b"X-Real-IP: " + EVIL,
    b"Forwarded: for=6.6.6.6;host=evil.test;proto=http",
    b"Daphne-Root-Path: /evil",
    b"Daphne-Root-Path: https://evil.test",
    b"Daphne-Root-Path: %2fevil",
    b"X_Forwarded_For: " + EVIL,
    b"X_Forwarded-For: " + EVIL,
    b"X-Forwarded_For: " + EVIL,
    b"X_Forwarded_Proto: http",
    b"X_Forwarded_Port: 1",
    b"X_Forwarded_Host: evil.test",
    b"Daphne_Root_Path: /evil",
    b"X_Real_User: root",
    b"Remote_User: root",
    b"Content_Length: 500",
    b"Transfer_Encoding: chunked",
    b"Host_: evil.test",
]

#: Connection names a field that the proxy sets: a proxy that then removes it would tell nothing.
HOP_BY_HOP = [
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Port",
    b"Host",
    b"Content-Length",
    b"Cookie",
    b"close, X-Forwarded-For",
    b"keep-alive, X-Forwarded-Proto",
]

HOSTS = [
    [b"Host: example.com", b"Host: evil.test"],
    [b"Host: evil.test", b"Host: example.com"],
    [b"Host: example.com", b"host: example.com"],
    [b"Host: example.com:443"],
    [b"Host: EXAMPLE.com"],
    [b"Host: example.com."],
    [b"Host: evil.test"],
    [b"Host: example.com@evil.test"],
    [b"Host: example.com/evil"],
    [b"Host: example.com, evil.test"],
    [b"Host: example.com evil.test"],
    [b"Host:"],
    [],
]


def spoofs() -> list[tuple[str, bytes]]:
    """Id and bytes of each case."""
    cases = [(f"field {field[:40]!r}", get(field)) for field in FIELDS]
    cases += [(f"field twice {field[:40]!r}", get(field, field)) for field in FIELDS]
    cases += [(f"handshake {field[:40]!r}", handshake("/", field)) for field in FIELDS]
    cases += [(f"case {field[:40]!r}", get(field.swapcase())) for field in FIELDS]
    cases += [
        (f"trailer {field[:40]!r}",
         post(b"Transfer-Encoding: chunked", body=b"0\r\n" + field + b"\r\n\r\n") + AFTER)
        for field in FIELDS if len(field) < 200
    ]  # fmt: skip
    cases += [
        (f"hop by hop {name!r}", get(b"Connection: " + name, b"Cookie: a=b", b"X-Forwarded-For: 6"))
        for name in HOP_BY_HOP
    ]
    cases += [(f"host {b' '.join(lines)!r}", request(b"GET / HTTP/1.1", *lines)) for lines in HOSTS]
    cases += [
        (f"target {target!r}", request(b"GET " + target + b" HTTP/1.1", b"Host: example.com"))
        for target in TARGETS
    ]
    return cases + UPGRADES


TARGETS = [
    b"http://evil.test/x",
    b"https://evil.test/x",
    b"http://example.com@evil.test/",
    b"http://example.com:80/",
    b"//evil.test/x",
    b"/a/../b",
    b"/a/%2e%2e/b",
    b"/a%2fb",
    b"/a//b",
    b"/a;b/c",
    b"/static/../a",
    b"/static/..%2fa",
    b"/static../a",
    b"/a%0d%0aX-Forwarded-For:%206.6.6.6",
    b"/a%00b",
    b"/a\\b",
    b"/a?b#c",
    b"/a%20HTTP/1.1%0d%0aHost:%20evil.test",
]

#: Upgrades that fail, and what follows them: a proxy that believes in a tunnel lets it pass unseen.
UPGRADES = [
    ("upgrade to h2c",
     get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
     + SMUGGLED),
    ("upgrade of a bad version",
     handshake("/", b"Sec-WebSocket-Version: 777", without=(b"Sec-WebSocket-Version",)) + SMUGGLED),
    ("upgrade without a key", handshake("/", without=(b"Sec-WebSocket-Key",)) + SMUGGLED),
    ("upgrade with a length", handshake("/", b"Content-Length: 5") + b"hello" + SMUGGLED),
    ("upgrade with chunks",
     handshake("/", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED),
    ("upgrade of a post", handshake(line=b"POST / HTTP/1.1") + SMUGGLED),
    ("upgrade of HTTP/1.0", handshake(line=b"GET / HTTP/1.0") + SMUGGLED),
    ("upgrade to two", handshake("/", b"Upgrade: h2c") + SMUGGLED),
    ("upgrade to nothing known", get(b"Connection: Upgrade", b"Upgrade: x") + SMUGGLED),
]  # fmt: skip
