"""Consumers for WebSocket messages, and those that carry JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from channels.legacy.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user_from_http,
)
from channels.legacy.channel import Group
from channels.legacy.exceptions import SendNotAvailableOnDemultiplexer
from channels.legacy.generic.base import MULTIPLEXER, BaseConsumer, Handler, in_order
from channels.legacy.message import Message


class WebsocketConsumer(BaseConsumer):
    """Accepts WebSockets, and handles their messages.  Override `receive`.

    Attributes:
        http_user: Whether the user of the HTTP session is kept in the channel session, and
            `message.user` is there; `http_user_and_session` adds `message.http_session`.
        strict_ordering: Whether a socket's messages are handled one after the other, in order.
        groups: The groups that each socket is in while it is open.
    """

    method_mapping: Mapping[str, str] = {
        "websocket.connect": "raw_connect",
        "websocket.receive": "raw_receive",
        "websocket.disconnect": "raw_disconnect",
    }
    http_user: bool = False
    http_user_and_session: bool = False
    strict_ordering: bool = False
    slight_ordering: bool = False
    groups: Iterable[str] | None = None

    def get_handler(self, message: Message, **kwargs: Any) -> Handler:
        """The method for a message, in the decorators that the class attributes ask for.

        Raises:
            ValueError: If `slight_ordering` is set, which Channels 1.0 removed.
        """
        if self.slight_ordering:
            raise ValueError(
                f"{type(self).__name__}.slight_ordering is set, which is no more: a socket opens "
                "once its connect message was handled. Remove it, or set strict_ordering."
            )
        handler = super().get_handler(message, **kwargs)
        if self.http_user_and_session:
            handler = channel_and_http_session_user_from_http(handler)
        elif self.http_user:
            handler = channel_session_user_from_http(handler)
        return in_order(handler) if self.strict_ordering else handler

    @property
    def path(self) -> str:
        """The path that the socket was opened with."""
        path: str = self.message["path"]
        return path

    def connection_groups(self, **kwargs: Any) -> Iterable[str]:  # noqa: ARG002 - overridden
        """The names of the groups that the socket is in; override it where they depend on it."""
        return self.groups or ()

    def raw_connect(self, message: Message, **kwargs: Any) -> None:
        """Put the socket into its groups, then `connect`."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).add(message.reply_channel)
        self.connect(message, **kwargs)

    def connect(self, message: Message, **kwargs: Any) -> None:  # noqa: ARG002 - overridden
        """Accept the socket; override it to look at it first."""
        message.reply_channel.send({"accept": True})

    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Hand what the client sent to `receive`."""
        text = message.get("text")
        if text is not None:
            self.receive(text=text, **kwargs)
        else:
            self.receive(bytes=message["bytes"], **kwargs)

    def receive(
        self,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - the name of the API
        **kwargs: Any,
    ) -> None:
        """Override it: handle what the client sent, either of both."""

    def send(
        self,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - the name of the API
        close: bool | int = False,
    ) -> None:
        """Send to the client.

        Args:
            close: True or a close code closes the socket afterwards.

        Raises:
            ValueError: If neither a text nor bytes are given.
            SendNotAvailableOnDemultiplexer: If a demultiplexer handed on the message.
        """
        if MULTIPLEXER in self.kwargs:
            raise SendNotAvailableOnDemultiplexer(
                f"{type(self).__name__} serves a stream of a demultiplexer: send with the "
                "`multiplexer` that its methods are called with."
            )
        self.message.reply_channel.send(_outgoing(text, bytes, close))

    @classmethod
    def group_send(
        cls,
        name: str,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - the name of the API
        close: bool | int = False,
    ) -> None:
        """Send to the clients of a group; arguments and errors as for `send`."""
        Group(name).send(_outgoing(text, bytes, close))

    def close(self, status: bool | int = True) -> None:
        """Close the socket, with a code if `status` is one."""
        self.message.reply_channel.send({"close": status})

    def raw_disconnect(self, message: Message, **kwargs: Any) -> None:
        """Take the socket out of its groups, then `disconnect`."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).discard(message.reply_channel)
        self.disconnect(message, **kwargs)

    def disconnect(self, message: Message, **kwargs: Any) -> None:
        """Override it: the socket has closed."""


class JsonWebsocketConsumer(WebsocketConsumer):
    """Receives and sends JSON in text frames.  Override `receive(content)`."""

    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Hand what the client sent to `receive`, decoded.

        Raises:
            ValueError: If it is a binary frame, or no JSON.
        """
        text = message.get("text")
        if text is None:
            raise ValueError(
                f"{type(self).__name__} got a binary frame: expected JSON in a text frame."
            )
        self.receive(self.decode_json(text), **kwargs)

    def receive(self, content: Any, **kwargs: Any) -> None:  # type: ignore[override] # as upstream
        """Override it: handle what the client sent."""

    def send(self, content: Any, close: bool | int = False) -> None:  # type: ignore[override]
        """Send JSON to the client; `close` and errors as for `WebsocketConsumer.send`."""
        super().send(text=self.encode_json(content), close=close)

    @classmethod
    def group_send(  # type: ignore[override] # as upstream
        cls, name: str, content: Any, close: bool | int = False
    ) -> None:
        """Send JSON to the clients of a group."""
        WebsocketConsumer.group_send(name, text=cls.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text: str) -> Any:
        """Override it to read another form."""
        return json.loads(text)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Override it to write another form."""
        return json.dumps(content)


def _outgoing(text: str | None, data: bytes | None, close: bool | int) -> dict[str, Any]:
    """The message that makes the interface server send a frame."""
    message: dict[str, Any] = {"close": close} if close else {}
    if text is not None:
        message["text"] = text
    elif data is not None:
        message["bytes"] = data
    else:
        raise ValueError("There is nothing to send: pass text or bytes.")
    return message
