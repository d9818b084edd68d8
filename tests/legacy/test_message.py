"""Messages as consumers see them."""

from __future__ import annotations

from typing import Any

import pytest

from channels.message import Message
from tests.legacy.conftest import MakeSite


def test_a_message_is_a_mapping_with_channels(site: MakeSite) -> None:
    layer = site()
    content = {"reply_channel": "websocket.send.x!y", "text": "hello"}
    message = Message(content, "websocket.receive", layer)
    assert (message["text"], message.get("bytes"), message.get("bytes", b"")) == (
        "hello",
        None,
        b"",
    )
    assert "text" in message
    assert "bytes" not in message
    assert list(message.keys()) == ["reply_channel", "text"]
    assert list(message.values()) == ["websocket.send.x!y", "hello"]
    assert dict(message.items()) == message.content == content
    assert message.channel.name == "websocket.receive"
    assert message.reply_channel.name == "websocket.send.x!y"
    assert message.channel_layer is message.reply_channel.channel_layer is layer
    with pytest.raises(KeyError):
        message["bytes"]


def test_without_a_reply_channel_there_is_none(site: MakeSite) -> None:
    assert Message({}, "jobs", site()).reply_channel is None


def test_a_copy_is_deep(site: MakeSite) -> None:
    message = Message({"names": ["a"]}, "jobs", site())
    copied = message.copy()
    copied["names"].append("b")
    assert message["names"] == ["a"]
    assert (copied.channel.name, copied.channel_layer) == ("jobs", message.channel_layer)


@pytest.mark.parametrize(
    ("content", "said"),
    [([1], "must be a dict: found list"), ({"reply_channel": 7}, "reply_channel .* found int")],
)
def test_what_is_no_message_is_refused(content: Any, said: str, site: MakeSite) -> None:
    with pytest.raises(TypeError, match=said):
        Message(content, "jobs", site())
