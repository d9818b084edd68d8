"""Which messages are ready frames, and which need their consumer."""

from typing import Any

import pytest

from channels.fanout.event import Event
from channels.wire.frames import BINARY, TEXT, server_frame


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ({"type": "websocket.send", "text": "a"}, server_frame(TEXT, b"a")),
        ({"type": "websocket.send", "text": ""}, server_frame(TEXT, b"")),
        ({"type": "websocket.send", "bytes": b"a"}, server_frame(BINARY, b"a")),
        ({"type": "websocket.send", "text": "a", "bytes": None}, server_frame(TEXT, b"a")),
        ({"type": "websocket.send", "text": None, "bytes": b""}, server_frame(BINARY, b"")),
    ],
)
def test_outbound_events_are_prepared(message: dict[str, Any], frame: bytes) -> None:
    event = Event(message)
    assert event.prepared is not None
    assert event.prepared.frame() == frame


@pytest.mark.parametrize(
    "message",
    [
        {"type": "chat.message", "text": "a"},
        {"text": "a"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send", "text": b"a"},
        {"type": "websocket.send", "bytes": "a"},
        {"type": "websocket.send", "text": "a", "close": True},
        {"type": "websocket.close"},
    ],
)
def test_all_others_need_their_consumer(message: dict[str, Any]) -> None:
    assert Event(message).prepared is None
