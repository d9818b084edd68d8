"""Channels and groups by name, to send to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.legacy.asgi import channel_layers
from channels.legacy.pending import pending_message_store


class _Receiver:
    """What has a name on a layer, and takes messages."""

    def __init__(
        self, name: str | bytes, alias: str = DEFAULT_CHANNEL_LAYER, channel_layer: Any = None
    ) -> None:
        self.name = _text(name)
        self.channel_layer: Any = channel_layer or channel_layers[alias]

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _send(
        self, verb: Callable[[str, Any], Any], content: dict[str, Any], immediately: bool
    ) -> None:
        """Send by this verb of the layer, now or once the consumer has returned."""
        if pending_message_store.active and not immediately:
            pending_message_store.append(self, content)
        else:
            verb(self.name, content)


class Channel(_Receiver):
    """A channel to send to.

    Args:
        alias: Which of CHANNEL_LAYERS it is on.
        channel_layer: The layer itself, in place of `alias`.

    Raises:
        TypeError: If the name is neither a string nor ASCII bytes.
    """

    def send(self, content: dict[str, Any], immediately: bool = False) -> None:
        """Send a message; from a consumer once that has returned, whatever became of it.

        Args:
            immediately: Whether to send it now, in a consumer too.

        Raises:
            TypeError: If the content is no dict.
            ChannelFull: If it is sent now and the channel is full.
        """
        if not isinstance(content, dict):
            raise TypeError(f"A channel's message must be a dict: found {content!r}.")
        self._send(self.channel_layer.send, content, immediately)


class Group(_Receiver):
    """A group of channels to send to.

    Args:
        alias: Which of CHANNEL_LAYERS it is on.
        channel_layer: The layer itself, in place of `alias`.

    Raises:
        TypeError: If the name is neither a string nor ASCII bytes.
    """

    def add(self, channel: Channel | str) -> None:
        """Make a channel a member, at once; again: refresh its membership."""
        self.channel_layer.group_add(self.name, _name(channel))

    def discard(self, channel: Channel | str) -> None:
        """Take a channel out, at once; nothing happens if it is no member."""
        self.channel_layer.group_discard(self.name, _name(channel))

    def send(self, content: dict[str, Any], immediately: bool = False) -> None:
        """Send a message to every member; from a consumer once that has returned.

        Args:
            immediately: Whether to send it now, in a consumer too.

        Raises:
            ValueError: If the content is no dict.
        """
        if not isinstance(content, dict):
            raise ValueError(f"A group's message must be a dict: found {content!r}.")
        self._send(self.channel_layer.send_group, content, immediately)


def _name(channel: Channel | str) -> str:
    return channel.name if isinstance(channel, Channel) else channel


def _text(name: Any) -> str:
    if isinstance(name, bytes):
        return name.decode("ascii")
    if not isinstance(name, str):
        raise TypeError(f"A name must be a string: found {type(name).__name__}.")
    return name
