"""Several streams on one WebSocket: each frame is {"stream": name, "payload": dict} as JSON."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from django.core.serializers.json import DjangoJSONEncoder

from channels.kit.printable import printable
from channels.legacy.channel import Channel, Group
from channels.legacy.exceptions import SendNotAvailableOnDemultiplexer
from channels.legacy.generic.base import MULTIPLEXER, Handler
from channels.legacy.generic.websockets import JsonWebsocketConsumer
from channels.legacy.message import Message


class WebsocketMultiplexer:
    """Sends on one stream of a socket."""

    def __init__(self, stream: str, reply_channel: Channel) -> None:
        self.stream = stream
        self.reply_channel = reply_channel

    def send(self, payload: Any) -> None:
        """Send a payload to the client on this stream."""
        self.reply_channel.send(self.encode(self.stream, payload))

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Override it to write another form; this one knows dates, decimals and UUIDs."""
        return json.dumps(content, cls=DjangoJSONEncoder)

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """The message that sends a payload on a stream, for a reply channel or a group."""
        return {"text": cls.encode_json({"stream": stream, "payload": payload})}

    @classmethod
    def group_send(cls, name: str, stream: str, payload: Any, close: bool | int = False) -> None:
        """Send a payload on a stream to the clients of a group.

        Args:
            close: True or a close code closes their sockets afterwards.
        """
        message = cls.encode(stream, payload)
        if close:
            message["close"] = close
        Group(name).send(message)


class WebsocketDemultiplexer(JsonWebsocketConsumer):
    """Accepts WebSockets and hands each payload to the consumer of its stream.

    Consumers get connect and disconnect messages too, and with each call the keyword argument
    `multiplexer`, which sends on their stream.

    Attributes:
        consumers: Stream -> its consumer, a class or function; also a `Binding.consumer`.
    """

    consumers: Mapping[str, Handler] = {}
    multiplexer_class: type[WebsocketMultiplexer] = WebsocketMultiplexer

    def get_handler(self, message: Message, **kwargs: Any) -> Handler:
        """As for any consumer; the order is enforced here if a stream's consumer asks for it."""
        self.strict_ordering = self.strict_ordering or any(
            getattr(consumer, "strict_ordering", False) for consumer in self.consumers.values()
        )
        return super().get_handler(message, **kwargs)

    def connect(self, message: Message, **kwargs: Any) -> None:
        """Accept the socket, then hand on the message to every stream."""
        message.reply_channel.send({"accept": True})
        for stream in self.consumers:
            self._forward(stream, message.content, kwargs)

    def receive(self, content: Any, **kwargs: Any) -> None:  # type: ignore[override] # as upstream
        """Hand a payload to its stream's consumer.

        Raises:
            ValueError: If the frame has another form, or its stream no consumer.
        """
        if not isinstance(content, dict) or not {"stream", "payload"} <= content.keys():
            raise ValueError(
                'A multiplexed frame is {"stream": name, "payload": object}: found '
                f"{printable(repr(content))}."
            )
        stream, payload = content["stream"], content["payload"]
        if not isinstance(stream, str) or stream not in self.consumers:
            raise ValueError(
                f"No consumer for the stream {printable(repr(stream))}: expected one of "
                f"{', '.join(self.consumers)}."
            )
        if not isinstance(payload, dict):
            raise ValueError(
                f"The payload of a multiplexed frame is an object: the one for {stream!r} is "
                f"{printable(repr(payload))}."
            )
        text = self.encode_json(payload)
        self._forward(stream, {**self.message.content, "text": text}, kwargs)

    def disconnect(self, message: Message, **kwargs: Any) -> None:
        """Hand on the message to every stream, also if the consumer of another one fails."""
        with contextlib.ExitStack() as stack:
            for stream in reversed(list(self.consumers)):
                stack.callback(self._forward, stream, message.content, kwargs)

    def _forward(self, stream: str, content: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
        # A copy, that a consumer may change; it has the sessions and the user of the original.
        message = copy.copy(self.message)
        message.content = dict(content)
        multiplexer = self.multiplexer_class(stream, message.reply_channel)
        self.consumers[stream](message, **{**kwargs, MULTIPLEXER: multiplexer})

    def send(self, *_: Any, **__: Any) -> NoReturn:
        """Raise SendNotAvailableOnDemultiplexer: a frame belongs to a stream."""
        raise SendNotAvailableOnDemultiplexer(_SEND)

    @classmethod
    def group_send(cls, *_: Any, **__: Any) -> NoReturn:
        """Raise SendNotAvailableOnDemultiplexer: a frame belongs to a stream."""
        raise SendNotAvailableOnDemultiplexer(_SEND)


_SEND = (
    "A demultiplexer sends nothing by itself: call send or group_send of a WebsocketMultiplexer, "
    "which name a stream."
)
