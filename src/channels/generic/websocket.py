"""Consumers for WebSockets: connect, receive, disconnect; accept, send, close.

What the sync and the async consumers say is the same and is written once, as functions and in
`WebsocketRules`; the two kinds differ in how they call and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import weakref
from typing import Any, Final

from asgiref.sync import async_to_sync

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.consumer.base import no_coroutine
from channels.consumer.sync import call_plain
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.handover import SERVICE_RESTART, HandOver
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import HeaderPairs, Message, Scope

logger = logging.getLogger("django.channels")

#: One line in so many seconds about each class whose `connect()` answers nothing.
_unanswered: Final = Throttle(5.0)

#: RFC 6455 section 7.4.1: "1005 ... no status code was actually present."
NO_CODE = 1005


def accept_event(subprotocol: str | None, headers: HeaderPairs | None) -> Message:
    """What accepts the WebSocket."""
    event: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
    if headers:
        event["headers"] = list(headers)
    return event


def send_event(text_data: str | None, bytes_data: bytes | None) -> Message:
    """What sends one message.

    Raises:
        ValueError: If there is neither text nor bytes.
    """
    if text_data is not None:
        return {"type": "websocket.send", "text": text_data}
    if bytes_data is not None:
        return {"type": "websocket.send", "bytes": bytes_data}
    raise ValueError("You must pass one of bytes_data or text_data")


def close_event(code: int | bool | None, reason: str | None) -> Message:
    """What closes the WebSocket; before accept it refuses the handshake."""
    event: Message = {"type": "websocket.close"}
    if code is not None and code is not True:
        event["code"] = code
    if reason:
        event["reason"] = reason
    return event


def received(event: Message) -> dict[str, Any]:
    """The arguments for `receive()` that an incoming message stands for."""
    if event.get("text") is not None:
        return {"text_data": event["text"]}
    return {"bytes_data": event.get("bytes")}


def text_of_json(text_data: str | None) -> str:
    """The text to decode.

    Raises:
        ValueError: If the message has none.
    """
    if not text_data:
        raise ValueError("No text section for incoming WebSocket frame!")
    return text_data


def _running_tasks(consumer: object) -> list[asyncio.Future[Any]]:
    """What `connect()` began and keeps: in attributes, or in lists and sets there."""
    held: list[Any] = []
    for value in vars(consumer).values():
        held += value if isinstance(value, list | set | tuple) else [value]
    return [each for each in held if isinstance(each, asyncio.Future) and not each.done()]


#: The `send` of connections that one of their consumers has accepted.
_accepted: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def _is_of_a_consumer(send: Any) -> bool:
    """True for a method of another consumer, which hears what is sent and answers the client."""
    while isinstance(send, functools.partial):
        send = send.func
    return isinstance(getattr(send, "__self__", None), AsyncConsumer)


class WebsocketRules(HandOver):
    """What WebSocket consumers of both kinds have in common and that says or awaits nothing.

    `groups` are joined before `connect()` and left before `disconnect()`.
    """

    #: True if another handler than `connect()` may accept the WebSocket.  Otherwise one that
    #: `connect()` has neither accepted nor closed is refused as soon as it returns; or, if it has
    #: left a running task in an attribute of the consumer, as soon as that has ended.
    accept_later = False

    _answered = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        scope: Scope | None = next(iter(args), kwargs.get("scope"))
        super().__init__(scope if isinstance(scope, dict) else None)
        if self.groups is None:
            self.groups = []

    def _expect_answer(self) -> None:
        """Notice the first event that is said from here on."""
        send = self.base_send
        self._answered = False

        def answer(message: Message) -> Any:
            if not self._answered:
                # Only the first is of interest: the others take the short way.
                self._answered = True
                self.base_send = send
            return send(message)

        self.base_send = answer

    def _note_accepted(self) -> None:
        # A callable that has no hash belongs to nobody else.
        with contextlib.suppress(TypeError):
            _accepted.add(self._shared_send)

    def _tell_unanswered(self, remedy: str) -> None:
        name = type(self).__qualname__
        held_back = _unanswered.admit(name)
        if held_back is not None:
            logger.warning(
                "%s.connect() returned without accept() or close(), so the WebSocket is refused: "
                "call `%s`, or set accept_later = True if another handler does.%s",
                name,
                remedy,
                and_more(held_back),
            )

    @property
    def _is_unanswered(self) -> bool:
        """True if nobody has accepted, or may do so yet: demultiplexers answer for several."""
        if self._answered or self.accept_later or _is_of_a_consumer(self._shared_send):
            return False
        with contextlib.suppress(TypeError):
            return self._shared_send not in _accepted
        return True


class WebsocketConsumer(WebsocketRules, SyncConsumer):
    """A WebSocket consumer of plain methods, which run on threads."""

    def websocket_connect(self, message: Message) -> None:
        """Join the class's groups and ask `connect()` whether to accept."""
        if self._keeps_state:
            self._give_state()
        for group in self._groups_to_join():
            async_to_sync(self.channel_layer.group_add)(group, self.channel_name)
        self._expect_answer()
        try:
            call_plain(self.connect)
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()
        if self._is_unanswered:
            self._tell_unanswered("self.accept()")
            self.close()

    def connect(self) -> None:
        """Override: call `accept()` or `close()`, or raise AcceptConnection or DenyConnection."""
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: HeaderPairs | None = None) -> None:
        """Accept the WebSocket, with one of the client's subprotocols and with more headers."""
        super().send(accept_event(subprotocol, headers))
        self._note_accepted()

    def websocket_receive(self, message: Message) -> None:
        """Hand an incoming message to `receive()`."""
        call_plain(self.receive, **received(message))

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Override: one message came in; exactly one of the two is not None."""

    def send(  # type: ignore[override]  # the verb of this class says text, not events
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool | int = False,
    ) -> None:
        """Send one message, and close after it if `close` is True or a code.

        Raises:
            ValueError: If there is neither text nor bytes.
        """
        super().send(send_event(text_data, bytes_data))
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the WebSocket, or refuse it if it was not accepted yet."""
        self._closed = True
        super().send(close_event(code, reason))

    def websocket_disconnect(self, message: Message) -> None:
        """Leave the class's groups, call `disconnect()` and end."""
        try:
            for group in self._groups_to_leave():
                async_to_sync(self.channel_layer.group_discard)(group, self.channel_name)
        finally:
            call_plain(self.disconnect, message.get("code", NO_CODE))
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Override: the client has gone, with this close code."""

    def websocket_resume(self, message: Message) -> None:
        """Go on with a connection that another worker had."""
        self._placement_of(message)
        if not self._keeps_state:
            self.close(SERVICE_RESTART)
            return
        for group in self._groups_to_resume(message):
            async_to_sync(self.channel_layer.group_add)(group, self.channel_name)
        call_plain(self.resumed)

    def resumed(self) -> None:
        """Override: the connection goes on here, with its state and groups."""

    def websocket_release(self, message: Message) -> None:
        """Let another worker go on with the connection."""
        if async_to_sync(self._placement_of(message).release)():
            self._closed = True
            raise StopConsumer


class JsonWebsocketConsumer(WebsocketConsumer):
    """A WebSocket consumer whose messages are JSON texts."""

    def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode a message for `receive_json()`.

        Raises:
            ValueError: If the message has no text.
        """
        call_plain(self.receive_json, self.decode_json(text_of_json(text_data)), **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Override: one decoded message came in."""

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """Encode and send one message, and close after it if `close` is True or a code."""
        self.send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Override to decode otherwise."""
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Override to encode otherwise."""
        return json.dumps(content)


class AsyncWebsocketConsumer(WebsocketRules):
    """A WebSocket consumer of coroutine methods."""

    @classmethod
    def _prepare(cls) -> None:
        super()._prepare()
        cls._sends_plainly = super().send is AsyncConsumer.send

    async def websocket_connect(self, message: Message) -> None:
        """Join the class's groups and ask `connect()` whether to accept."""
        if self._keeps_state:
            self._give_state()
        for group in self._groups_to_join():
            await self.channel_layer.group_add(group, self.channel_name)
        self._expect_answer()
        try:
            await (self.connect() or no_coroutine(self, "connect"))
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()
        if self._is_unanswered:
            if tasks := _running_tasks(self):
                self._line.spawn(self._refuse_after(tasks), "a WebSocket's answer by a task")
            else:
                self._tell_unanswered("await self.accept()")
                await self.close()

    async def _refuse_after(self, tasks: list[asyncio.Future[Any]]) -> None:
        await asyncio.wait(tasks)
        if self._is_unanswered:
            await self.close()

    async def connect(self) -> None:
        """Override: call `accept()` or `close()`, or raise AcceptConnection or DenyConnection."""
        await self.accept()

    async def accept(
        self, subprotocol: str | None = None, headers: HeaderPairs | None = None
    ) -> None:
        """Accept the WebSocket, with one of the client's subprotocols and with more headers."""
        await super().send(accept_event(subprotocol, headers))
        self._note_accepted()

    async def websocket_receive(self, message: Message) -> None:
        """Hand an incoming message to `receive()`."""
        await (self.receive(**received(message)) or no_coroutine(self, "receive"))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Override: one message came in; exactly one of the two is not None."""

    async def send(  # type: ignore[override]  # the verb of this class says text, not events
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool | int = False,
    ) -> None:
        """Send one message, and close after it if `close` is True or a code.

        Raises:
            ValueError: If there is neither text nor bytes.
        """
        say = self._direct_send
        if say is None or say is not self.base_send or self._is_elsewhere():
            say = super().send
        await say(send_event(text_data, bytes_data))
        if close:
            await self.close(close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the WebSocket, or refuse it if it was not accepted yet."""
        self._closed = True
        await super().send(close_event(code, reason))

    async def websocket_disconnect(self, message: Message) -> None:
        """Leave the class's groups, call `disconnect()` and end."""
        try:
            for group in self._groups_to_leave():
                await self.channel_layer.group_discard(group, self.channel_name)
        finally:
            left = self.disconnect(message.get("code", NO_CODE))
            await (left or no_coroutine(self, "disconnect"))
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """Override: the client has gone, with this close code."""

    async def websocket_resume(self, message: Message) -> None:
        """Go on with a connection that another worker had."""
        self._placement_of(message)
        if not self._keeps_state:
            await self.close(SERVICE_RESTART)
            return
        for group in self._groups_to_resume(message):
            await self.channel_layer.group_add(group, self.channel_name)
        await (self.resumed() or no_coroutine(self, "resumed"))

    async def resumed(self) -> None:
        """Override: the connection goes on here, with its state and groups."""

    async def websocket_release(self, message: Message) -> None:
        """Let another worker go on with the connection."""
        if await self._placement_of(message).release():
            self._closed = True
            raise StopConsumer


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """A WebSocket consumer of coroutine methods whose messages are JSON texts."""

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Decode a message for `receive_json()`.

        Raises:
            ValueError: If the message has no text.
        """
        content = await self.decode_json(text_of_json(text_data))
        await (self.receive_json(content, **kwargs) or no_coroutine(self, "receive_json"))

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Override: one decoded message came in."""

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Encode and send one message, and close after it if `close` is True or a code."""
        await self.send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Override to decode otherwise."""
        return json.loads(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Override to encode otherwise."""
        return json.dumps(content)
