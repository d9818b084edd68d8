"""A client without a server: sends messages, and runs their consumers in the test's own thread."""

from __future__ import annotations

import copy
import secrets
import string
from collections.abc import Mapping
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.legacy.channel import Group
from channels.legacy.exceptions import ChannelSocketException
from channels.legacy.handling import consuming
from channels.legacy.message import Message
from channels.legacy.test.cases import next_message


class Client:
    """A client with a reply channel of its own.

    Args:
        alias: Which of CHANNEL_LAYERS it uses.
    """

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER) -> None:
        self.alias = alias
        letters = (secrets.choice(string.ascii_letters) for _ in range(12))
        self.reply_channel = f"{alias}.client.{''.join(letters)}"

    @property
    def channel_layer(self) -> ChannelLayerWrapper:
        """The layer with its routing."""
        return channel_layers[self.alias]

    def get_next_message(self, channel: str) -> Message | None:
        """The next message that was sent to a channel, or None."""
        return next_message(channel, self.alias)

    def get_consumer_by_channel(self, channel: str) -> Any:
        """The consumer of a channel's messages whose only key is an empty text; None: it has none.

        Routes that filter by other keys are not found.
        """
        layer = self.channel_layer
        found = layer.router.match(Message({"text": ""}, channel, layer))
        return found[0] if found else None

    def send(self, to: str, content: Mapping[str, Any] | None = None) -> None:
        """Send a message to a channel, with this client's reply channel."""
        message = {"reply_channel": self.reply_channel, **copy.deepcopy(dict(content or {}))}
        self.channel_layer.send(to, message)

    def consume(self, channel: str, fail_on_none: bool = True) -> Any:
        """Run the consumer of a channel's next message, and return what it returns.

        Errors of the consumer are raised here; what it has sent is sent all the same.

        Raises:
            AssertionError: If there is no message or no consumer, unless `fail_on_none` is False.
        """
        message = self.get_next_message(channel)
        if message is None:
            if fail_on_none:
                raise AssertionError(f"There is no message on channel {channel!r}.")
            return None
        found = self.channel_layer.router.match(message)
        if found is None:
            if fail_on_none:
                raise AssertionError(
                    f"No route matches a message on channel {channel!r} with {message.content!r}."
                )
            return None
        consumer, kwargs = found
        with consuming(type(self)):
            try:
                return consumer(message, **kwargs)
            except ChannelSocketException as action:
                action.run(message)
                return None

    def send_and_consume(
        self,
        channel: str,
        content: Mapping[str, Any] | None = None,
        fail_on_none: bool = True,
    ) -> Any:
        """Send a message and run its consumer; arguments and errors as for `consume`."""
        self.send(channel, content)
        return self.consume(channel, fail_on_none=fail_on_none)

    def receive(self) -> Any:
        """The content of the next reply, or None."""
        message = self.get_next_message(self.reply_channel)
        return None if message is None else message.content

    def join_group(self, group_name: str) -> None:
        """Receive what is sent to a group."""
        Group(group_name, self.alias).add(self.reply_channel)
