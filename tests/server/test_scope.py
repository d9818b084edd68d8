from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import InvalidOption
from channels.server.options import ProxyOptions, ServerOptions
from channels.server.peer import Peer
from channels.server.proxy import Proxies
from channels.server.scope import ScopeBuilder
from channels.wire.request import Request
from tests.wire.reading import read

PEER = Peer(("1.2.3.4", 5), ("10.0.0.1", 80))


def request(*lines: str, target: str = "/") -> Request:
    head = "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", "Host: x", *lines, ""))
    (event,) = read([head.encode("latin-1")])
    assert isinstance(event, Request)
    return event


def build(*lines: str, target: str = "/", peer: Peer = PEER, **options: Any) -> dict[str, Any]:
    return ScopeBuilder(ServerOptions(**options)).build(
        "http", request(*lines, target=target), peer
    )


def behind(*proxies: str) -> ProxyOptions:
    return ProxyOptions(trusted_proxies=proxies)


def test_http_scope() -> None:
    assert build("A: b", target="/a%20%C3%A9/?c=%20d", root_path="/mount") == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a é/",
        "raw_path": b"/a%20%C3%A9/",
        "query_string": b"c=%20d",
        "root_path": "/mount",
        "headers": [(b"host", b"x"), (b"a", b"b")],
        "client": ["1.2.3.4", 5],
        "server": ["10.0.0.1", 80],
        "extensions": {},
    }


def test_a_websocket_scope_differs_in_its_own_keys_only() -> None:
    builder = ScopeBuilder(ServerOptions())
    asked = request("Sec-WebSocket-Protocol: a, b", "Upgrade: websocket")
    http = builder.build("http", asked, PEER)
    websocket = builder.build("websocket", asked, PEER)
    # Its session fills them in, if the handshake is in order.
    assert websocket.pop("subprotocols") == []
    assert http.pop("method") == "GET"
    assert (http.pop("type"), websocket.pop("type")) == ("http", "websocket")
    assert (http.pop("scheme"), websocket.pop("scheme")) == ("http", "ws")
    assert (http.pop("asgi"), websocket.pop("asgi")) == (
        {"version": "3.0", "spec_version": "2.4"},
        {"version": "3.0", "spec_version": "2.4"},
    )
    assert http == websocket


@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
def test_secure_schemes(kind: Any, scheme: str) -> None:
    peer = Peer(("1.2.3.4", 5), ("10.0.0.1", 443), is_secure=True)
    assert ScopeBuilder(ServerOptions()).build(kind, request(), peer)["scheme"] == scheme


def test_each_scope_has_its_own_copy_of_the_state() -> None:
    builder = ScopeBuilder(ServerOptions(), {"pool": 1})
    first, second = (builder.build("http", request(), PEER) for _ in range(2))
    first["state"]["mine"] = 2
    assert second["state"] == {"pool": 1}
    assert "state" not in build()


def test_a_path_that_is_not_utf_8_still_is_text() -> None:
    assert build(target="/%ff%zz")["path"] == "/\ufffd%zz"


def test_names_that_could_pass_for_others_are_dropped() -> None:
    assert build("X_Real_User: admin", "X-Real: b")["headers"] == [
        (b"host", b"x"),
        (b"x-real", b"b"),
    ]


@pytest.mark.parametrize(
    ("proxies", "lines", "client", "scheme"),
    [
        ((), ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https"], ("1.2.3.4", 5), "http"),
        (("5.6.7.8",), ["X-Forwarded-For: 9.9.9.9"], ("1.2.3.4", 5), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: 9.9.9.9"], ("9.9.9.9", 0), "http"),
        (("1.2.0.0/16",), ["X-Forwarded-For: 9.9.9.9"], ("9.9.9.9", 0), "http"),
        (("*",), ["X-Forwarded-For: 9.9.9.9, 8.8.8.8"], ("9.9.9.9", 0), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: 6.6.6.6, 9.9.9.9"], ("9.9.9.9", 0), "http"),
        (
            ("1.2.3.4", "10.0.0.0/8"),
            ["X-Forwarded-For: 6.6.6.6, 9.9.9.9", "X-Forwarded-For: 10.1.1.1"],
            ("9.9.9.9", 0),
            "http",
        ),
        (
            ("1.2.3.4",),
            ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Port: 77", "X-Forwarded-Proto: https"],
            ("9.9.9.9", 77),
            "https",
        ),
        (("1.2.3.4",), ["X-Forwarded-Port: 77"], ("1.2.3.4", 5), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: 9.9.9.9:78"], ("9.9.9.9", 78), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: [2001:db8::1]:78"], ("2001:db8::1", 78), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: 2001:db8::1"], ("2001:db8::1", 0), "http"),
        (("1.2.3.4",), ["X-Forwarded-Proto: gopher"], ("1.2.3.4", 5), "http"),
        (("1.2.3.4",), ["X-Forwarded-For: ,"], ("1.2.3.4", 5), "http"),
        # A client's own entries stand before the proxy's.
        (
            ("1.2.3.4",),
            ["X-Forwarded-Proto: https", "X-Forwarded-Proto: https, http"],
            ("1.2.3.4", 5),
            "http",
        ),
        (
            ("1.2.3.4",),
            ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Port: 77, 78"],
            ("9.9.9.9", 78),
            "http",
        ),
        (
            ("1.2.3.4",),
            ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Port: +7"],
            ("9.9.9.9", 0),
            "http",
        ),
        # Behind what is no address nothing is believed.
        (("1.2.3.4",), ["X-Forwarded-For: 9.9.9.9, unknown"], ("1.2.3.4", 5), "http"),
        (
            ("1.2.3.4", "10.0.0.0/8"),
            ["X-Forwarded-For: 9.9.9.9, _hidden, 10.1.1.1"],
            ("10.1.1.1", 0),
            "http",
        ),
        # Every name of an IPv4 address, on either side.
        (("::ffff:1.2.3.4",), ["X-Forwarded-For: 9.9.9.9"], ("9.9.9.9", 0), "http"),
        (("::ffff:1.2.0.0/112",), ["X-Forwarded-For: 9.9.9.9"], ("9.9.9.9", 0), "http"),
        (
            ("1.2.3.4", "10.0.0.0/8"),
            ["X-Forwarded-For: 9.9.9.9, ::ffff:10.1.1.1"],
            ("9.9.9.9", 0),
            "http",
        ),
    ],
)
def test_forwarded(
    proxies: tuple[str, ...], lines: list[str], client: tuple[str, int], scheme: str
) -> None:
    scope = build(*lines, proxy=behind(*proxies))
    assert (scope["client"], scope["scheme"]) == (list(client), scheme)


@pytest.mark.parametrize(
    "entry",
    [
        "unknown",
        "_secret",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4/8",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:123456",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[127.0.0.1]:5x",
        "fe80::1%eth0",
        'fe80::1%\x1b[2J" 200',
        "::1]",
        "1.2.3.4 GET",
        "\xb9.1.1.1",
        "<script>",
    ],
)
@pytest.mark.parametrize("proxies", [("1.2.3.4",), ("*",)])
def test_what_is_no_address_is_not_taken_for_one(entry: str, proxies: tuple[str, ...]) -> None:
    headers = [(b"x-forwarded-for", entry.encode("latin-1"))]
    assert Proxies(behind(*proxies)).resolve(PEER, headers) == PEER


def test_a_proxy_on_a_unix_socket() -> None:
    peer = Peer(None, ("/run/x", None), is_unix=True)
    line = "X-Forwarded-For: 9.9.9.9"
    assert build(line, peer=peer)["client"] is None
    assert build(line, peer=peer, proxy=behind("1.2.3.4"))["client"] is None
    assert build(line, peer=peer, proxy=behind("unix"))["client"] == ["9.9.9.9", 0]


def test_an_ipv4_proxy_on_an_ipv6_socket() -> None:
    peer = Peer(("::ffff:1.2.3.4", 5), None)
    scope = build("X-Forwarded-For: 9.9.9.9", peer=peer, proxy=behind("1.2.3.4"))
    assert scope["client"] == ["9.9.9.9", 0]


def test_other_names_for_the_fields() -> None:
    options = ProxyOptions(trusted_proxies=("*",), address_header="X-Client", port_header="X-Port")
    scope = build("X-Client: 9.9.9.9", "X-Port: 1", proxy=options)
    assert scope["client"] == ["9.9.9.9", 1]


def test_the_mount_point_is_taken_from_a_named_field_of_trusted_proxies_only() -> None:
    line = "Daphne-Root-Path: /a%20b"
    named: dict[str, Any] = {"root_path_header": "Daphne-Root-Path"}
    for options, expected in (
        (behind(), "/own"),
        (behind("*"), "/own"),
        (ProxyOptions(**named), "/own"),
        (ProxyOptions(trusted_proxies=("5.6.7.8",), **named), "/own"),
        (ProxyOptions(trusted_proxies=("1.2.3.4",), **named), "/a b"),
    ):
        scope = build(line, root_path="/own", proxy=options)
        assert scope["root_path"] == expected
        # It is hidden in any case: nobody is to believe a client's.
        assert scope["headers"] == [(b"host", b"x")]


@pytest.mark.parametrize(
    ("value", "root_path"),
    [
        ("/a", "/a"),
        ("/a/b%20c", "/a/b c"),
        ("/client, /proxy", "/proxy"),
        ("/%C3%A9", "/é"),
        ("", "/own"),
        ("a", "/own"),
        ("//evil.example", "/own"),
        ("/%2Fevil.example", "/own"),
        ("/\\evil.example", "/own"),
        ("/%5Cevil.example", "/own"),
        ("https://evil.example", "/own"),
        ("javascript:alert(1)", "/own"),
        ("/a?b", "/own"),
        ("/a%3Fb", "/own"),
        ("/a#b", "/own"),
        ("/a%0D%0Ab", "/own"),
        ("/a%00", "/own"),
        ("/a\tb", "/own"),
        ("/a%E2%80%A8b", "/own"),
        ("/a%C2%85b", "/own"),
        ("/" + 2047 * "a", "/" + 2047 * "a"),
        ("/" + 2048 * "a", "/own"),
    ],
)
def test_a_mount_point_is_a_path_and_nothing_else(value: str, root_path: str) -> None:
    options = ProxyOptions(trusted_proxies=("*",), root_path_header="Daphne-Root-Path")
    scope = build(f"Daphne-Root-Path: {value}", root_path="/own", proxy=options)
    assert scope["root_path"] == root_path


def test_a_proxy_that_is_no_address_is_an_error() -> None:
    with pytest.raises(InvalidOption, match=r"proxy\.example"):
        ScopeBuilder(ServerOptions(proxy=behind("proxy.example")))
