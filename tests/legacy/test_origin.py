"""Which web pages may open a WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import DenyConnection
from channels.legacy.message import Message
from channels.security.websockets import (
    AllowedHostsOnlyOriginValidator,
    BaseOriginValidator,
    allowed_hosts_only,
)
from tests.legacy.conftest import MakeSite


@pytest.fixture
def connect(site: MakeSite, settings: Any) -> Any:
    settings.ALLOWED_HOSTS = ["example.com", ".sub.example"]
    layer = site()

    def make(*origins: bytes) -> Message:
        headers = [[b"host", b"example.com"], *([b"origin", each] for each in origins)]
        return Message({"headers": headers}, "websocket.connect", layer)

    return make


@allowed_hosts_only
def consumer(message: Any, room: str = "") -> str:
    """A consumer."""
    return f"connected {room}"


@pytest.mark.parametrize(
    "origin", [b"http://example.com", b"https://example.com:8443", b"http://a.sub.example"]
)
def test_pages_of_allowed_hosts_connect(origin: bytes, connect: Any) -> None:
    assert consumer(connect(origin), room="x") == "connected x"


@pytest.mark.parametrize(
    "origins",
    [
        [],
        [b"http://evil.example"],
        [b"http://example.com.evil.example"],
        [b"http://ex\xc3\xa4mple.com"],
        [b"null"],
        [b"http://example.com@evil.example"],
        [b"http://example.com", b"http://example.com"],
    ],
)
def test_all_others_are_denied(origins: list[bytes], connect: Any) -> None:
    with pytest.raises(DenyConnection):
        consumer(connect(*origins))


def test_a_page_without_an_origin_is_denied_whatever_hosts_are_allowed(
    connect: Any, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert consumer(connect(b"http://any.example")) == "connected "
    with pytest.raises(DenyConnection):
        consumer(connect())


def test_a_subclass_has_its_own_rule(connect: Any) -> None:
    class Partner(BaseOriginValidator):
        def validate_origin(self, message: Any, origin: str) -> bool:
            return origin == "https://partner.example"

    @Partner
    def partners(message: Any) -> str:
        return "connected"

    assert partners(connect(b"https://partner.example")) == "connected"
    with pytest.raises(DenyConnection):
        partners(connect(b"http://example.com"))
    with pytest.raises(NotImplementedError, match="must define validate_origin"):
        BaseOriginValidator(lambda message: None)(connect(b"http://example.com"))


def test_it_decorates_a_method_too(connect: Any) -> None:
    class Consumer:
        @allowed_hosts_only
        def connect(self, message: Any) -> Consumer:
            return self

    instance = Consumer()
    assert instance.connect(connect(b"http://example.com")) is instance
    with pytest.raises(DenyConnection):
        instance.connect(connect(b"http://evil.example"))


def test_it_looks_like_the_consumer() -> None:
    assert isinstance(consumer, AllowedHostsOnlyOriginValidator)
    named: Any = consumer
    assert (named.__name__, named.__doc__) == ("consumer", "A consumer.")
