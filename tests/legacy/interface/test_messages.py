"""What replies mean."""

from __future__ import annotations

from typing import Any

import pytest

from channels.legacy.interface.messages import SocketReply, ready_reply, socket_reply


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"accept": True}, SocketReply(True, (), None)),
        ({"accept": False}, SocketReply(False, (), None)),
        ({"text": "a", "bytes": b"b"}, SocketReply(None, (b"b", "a"), None)),
        ({"text": "", "bytes": None}, SocketReply(None, ("",), None)),
        ({"close": True}, SocketReply(None, (), 1000)),
        ({"close": False}, SocketReply(None, (), None)),
        ({"close": 3000, "text": "x", "more": 1}, SocketReply(None, ("x",), 3000)),
    ],
)
def test_replies_to_a_websocket(message: dict[str, Any], expected: SocketReply) -> None:
    assert socket_reply(message) == expected


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({"text": "a"}, b"a"),
        ({"text": "a", "username": "b", "accept": True, "close": False}, b"a"),
        ({"bytes": b"c"}, b"c"),
        ({"text": "a", "close": True}, None),
        ({"text": "a", "accept": False}, None),
        ({"text": "a", "bytes": b"b"}, None),
        ({"text": 5}, None),
        ({"accept": True}, None),
    ],
)
def test_what_is_ready_for_an_open_socket(message: dict[str, Any], payload: bytes | None) -> None:
    found = ready_reply(message)
    assert (None if found is None else found.payload) == payload
