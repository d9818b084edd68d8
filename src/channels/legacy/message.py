"""Messages as consumers of Channels 1 see them."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, ValuesView
from copy import deepcopy
from typing import Any

from channels.legacy.channel import Channel
from channels.legacy.pending import PendingMessageStore, pending_message_store

__all__ = ["Message", "PendingMessageStore", "pending_message_store"]


class Message:
    """A message that was received: a dict, with the channels that belong to it.

    Attributes:
        content: The dict.
        channel: Where it was received.
        reply_channel: Where answers go, or None.
        channel_layer: The layer that it came by.

    Args:
        channel_layer: A `ChannelLayerWrapper`.

    Raises:
        TypeError: If the content is no dict, or its reply channel no string.
    """

    #: True while the message is handled for the last time: if it is put back it is dropped.
    __doomed__ = False

    def __init__(self, content: dict[str, Any], channel_name: str, channel_layer: Any) -> None:
        if not isinstance(content, dict):
            raise TypeError(f"A message must be a dict: found {type(content).__name__}.")
        reply = content.get("reply_channel")
        if reply is not None and not isinstance(reply, str | bytes):
            raise TypeError(f"reply_channel must be a string: found {type(reply).__name__}.")
        self.content = content
        self.channel = Channel(channel_name, channel_layer=channel_layer)
        self.channel_layer = channel_layer
        # Any: consumers of WebSockets send to it unasked, for theirs have one.
        self.reply_channel: Any = Channel(reply, channel_layer=channel_layer) if reply else None

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def __repr__(self) -> str:
        return f"<Message on {self.channel.name!r}>"

    def keys(self) -> KeysView[str]:
        return self.content.keys()

    def values(self) -> ValuesView[Any]:
        return self.content.values()

    def items(self) -> ItemsView[str, Any]:
        return self.content.items()

    def get(self, key: str, default: Any = None) -> Any:
        return self.content.get(key, default)

    def copy(self) -> Message:
        """A message whose content is a deep copy."""
        return self.with_content(deepcopy(self.content))

    def with_content(self, content: dict[str, Any]) -> Message:
        """A message with other content in the place of this one."""
        return type(self)(content, self.channel.name, self.channel_layer)
