"""Origins: which pages may connect, and what tricks must not."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlparse

import pytest

from channels.kit.types import Scope
from channels.middleware import single_callable
from channels.security.websocket import (
    AllowedHostsOriginValidator,
    OriginValidator,
    WebsocketDenier,
)
from tests.applications import Recorder, call

REFUSED = [{"type": "websocket.close"}]


async def passes(validator: OriginValidator, *origins: str | bytes) -> bool:
    """True if the application is reached with these Origin headers, False if it is refused."""
    recorder = Recorder()
    validator.application = recorder
    headers = [(b"host", b"good.com")]
    for origin in origins:
        headers.append((b"origin", origin.encode() if isinstance(origin, str) else origin))
    sent = await call(validator, {"type": "websocket", "path": "/", "headers": headers})
    assert sent == ([] if recorder.scopes else REFUSED)
    return bool(recorder.scopes)


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("*", "http://anything.example:1234", True),
        ("*", "null", True),
        ("*", "", True),
        ("allowed.com", "http://allowed.com", True),
        ("allowed.com", "https://allowed.com:8443", True),
        ("allowed.com", "HTTP://ALLOWED.COM", True),
        ("ALLOWED.com", "http://allowed.com", True),
        ("allowed.com", "http://allowed.com/", True),
        ("allowed.com", "app://allowed.com", True),
        ("allowed.com", "http://sub.allowed.com", False),
        ("allowed.com", "http://notallowed.com", False),
        ("allowed.com", "http://allowed.com.evil.com", False),
        ("allowed.com:8080", "http://allowed.com:8080", True),
        ("allowed.com:80", "http://allowed.com", True),
        ("allowed.com:8080", "http://allowed.com", False),
        (".allowed.com", "http://allowed.com", True),
        (".allowed.com", "http://a.b.allowed.com:81", True),
        (".allowed.com", "http://evilallowed.com", False),
        ("*.allowed.com", "http://sub.allowed.com", False),
        ("*.allowed.com", "http://*.allowed.com", False),
        ("http://allowed.com", "http://allowed.com", True),
        ("http://allowed.com", "http://allowed.com:80", True),
        ("http://allowed.com:80", "http://allowed.com", True),
        ("http://allowed.com", "http://allowed.com:8080", False),
        ("http://allowed.com", "https://allowed.com", False),
        ("https://allowed.com", "https://allowed.com:443", True),
        ("https://allowed.com:8443", "https://allowed.com:8443", True),
        ("https://allowed.com:8443", "https://allowed.com", False),
        ("https://.allowed.com", "https://sub.allowed.com", True),
        ("https://.allowed.com:443", "https://sub.allowed.com", True),
        ("https://.allowed.com", "http://sub.allowed.com", False),
        ("app://allowed.com", "app://allowed.com", True),
        ("[::1]", "http://[::1]:8000", True),
        ("http://[::1]:8000", "http://[::1]:8000", True),
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("", "http://allowed.com", False),
    ],
)
async def test_patterns(pattern: str, origin: str, allowed: bool) -> None:
    assert await passes(OriginValidator(None, [pattern]), origin) is allowed


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "good.com",
        "//good.com",
        "https:good.com",
        "https:///good.com",
        "file:///good.com",
        "https://",
        "https://evil.com",
        "https://evilgood.com",
        "https://good.com.evil.com",
        "https://good.com@evil.com",
        "https://evil.com@good.com",
        "https://@good.com",
        "https://user:secret@good.com",
        "https://evil.com\\.good.com",
        "https://evil.com\\@good.com",
        "https://evil.com/\\good.com",
        "https://good.com/\\evil.com",
        "https:\\\\good.com",
        "https://evil.com#.good.com",
        "https://evil.com?.good.com",
        "https://evil.com/.good.com",
        "https://evil.com%2f.good.com",
        "https://evil.com,good.com",
        "https://evil.com https://good.com",
        "https://good.com https://good.com",
        "https://good.com:abc",
        "https://good.com:",
        "https://good.com:99999",
        "https://good.com:99999999",
        "https://good.com:-1",
        "https://good.com:\uff1443",
        "https://[::1",
        "https://::1]",
        "https://[good.com]",
        "https://[::1].good.com",
        "https://[v1.x]",
        " https://good.com",
        "https://good.com ",
        "https://go\tod.com",
        "https://good.com\t",
        "https://good.com\r\n",
        "https://good.com\x00",
        "https://göod.com",
        "https://good.com\uff0e",
        b"https://\xff\xfe.good.com",
        b"\xff",
    ],
)
@pytest.mark.parametrize("patterns", [[".good.com"], ["https://good.com", "https://.good.com"]])
async def test_odd_origins_are_refused_without_an_error(
    origin: str | bytes, patterns: list[str]
) -> None:
    assert not await passes(OriginValidator(None, patterns), origin)


def test_a_star_inside_a_pattern_matches_nothing() -> None:
    validator = OriginValidator(None, [])
    assert not validator.match_allowed_origin(urlparse("http://*.good.com"), "*.good.com")
    assert not validator.match_allowed_origin(urlparse("http://*.good.com"), "http://*.good.com")
    assert not validator.match_allowed_origin(None, "good.com")


async def test_no_origin_passes_the_star_only() -> None:
    assert await passes(OriginValidator(None, ["*"]))
    assert not await passes(OriginValidator(None, ["good.com"]))
    assert not await passes(OriginValidator(None, []))


async def test_two_origins_are_refused() -> None:
    validator = OriginValidator(None, ["good.com"])
    assert not await passes(validator, "http://good.com", "http://good.com")
    assert not await passes(validator, "http://evil.com", "http://good.com")
    assert not await passes(OriginValidator(None, ["*"]), "http://a.com", "http://b.com")


async def test_one_pattern_of_many_is_enough() -> None:
    validator = OriginValidator(None, iter(["a.com", "https://b.com"]))
    assert await passes(validator, "http://a.com")
    assert await passes(validator, "https://b.com")
    assert not await passes(validator, "http://b.com")


async def test_only_for_websockets() -> None:
    with pytest.raises(ValueError, match="WebSockets"):
        await call(OriginValidator(Recorder(), ["*"]), {"type": "http", "headers": []})


async def test_a_refusal_is_logged_in_one_bounded_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="django.channels"):
        await passes(OriginValidator(None, ["good.com"]), "http://evil.com/\n" + "x" * 5000)
    (record,) = caplog.records
    assert record.getMessage().startswith("WebSocket refused: origin 'http://evil.com/\\n")
    assert len(record.getMessage()) < 300


@pytest.mark.parametrize(
    ("origin", "allowed", "said"),
    [
        (None, ["a.com", ".b.com"], "it has no Origin header; allowed: a.com, .b.com"),
        ("http://c.com", [], "origin 'http://c.com' is not allowed; allowed: none"),
        (
            "http://c.com",
            [f"{number}.com" for number in range(11)],
            "origin 'http://c.com' is not allowed; allowed: 0.com, 1.com, 2.com, 3.com, 4.com, "
            "5.com, 6.com, 7.com, 8.com, 9.com, ...",
        ),
    ],
)
async def test_a_refusal_says_what_is_allowed(
    origin: str | None, allowed: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    await passes(OriginValidator(None, allowed), *([] if origin is None else [origin]))
    assert caplog.messages == [f"WebSocket refused: {said}"]


async def test_a_subclass_decides_by_itself() -> None:
    class OnlyTenants(OriginValidator):
        def valid_origin(self, parsed_origin: Any) -> bool:
            return parsed_origin is not None and parsed_origin.hostname.startswith("tenant-")

    assert await passes(OnlyTenants(None, []), "https://tenant-7.example")
    assert not await passes(OnlyTenants(None, []), "https://other.example")


@pytest.mark.parametrize(
    ("origin", "port"),
    [
        ("http://a", 80),
        ("ws://a", 80),
        ("https://a", 443),
        ("wss://a", 443),
        ("app://a", None),
        ("http://a:81", 81),
    ],
)
def test_ports(origin: str, port: int | None) -> None:
    assert OriginValidator(None, []).get_origin_port(urlparse(origin)) == port


async def test_allowed_hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = [".good.com", "[::1]"]
    validator = AllowedHostsOriginValidator(Recorder())
    assert await passes(validator, "http://chat.good.com:3000")
    assert await passes(validator, "http://[::1]:8000")
    assert not await passes(validator, "http://localhost:8000")
    settings.ALLOWED_HOSTS = ["*"]
    assert await passes(validator)


async def test_allowed_hosts_in_development(settings: Any) -> None:
    settings.ALLOWED_HOSTS = []
    validator = AllowedHostsOriginValidator(Recorder())
    assert not await passes(validator, "http://localhost:8000")
    settings.DEBUG = True
    for host in ("localhost", "127.0.0.1", "[::1]", "chat.localhost"):
        assert await passes(validator, f"http://{host}:8000")
    assert not await passes(validator, "http://good.com")


async def test_the_denier() -> None:
    assert await call(WebsocketDenier.as_asgi(), {"type": "websocket"}) == REFUSED
    assert await call(single_callable(WebsocketDenier), {"type": "websocket"}) == REFUSED

    def two_steps(scope: Scope) -> WebsocketDenier:
        return WebsocketDenier(scope)

    assert await call(single_callable(two_steps), {"type": "websocket"}) == REFUSED
