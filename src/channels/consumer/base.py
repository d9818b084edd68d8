"""The consumer whose handlers are coroutines, and what both kinds share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, ClassVar, Final, NoReturn, cast

from asgiref.sync import markcoroutinefunction
from django.core.signals import got_request_exception

from channels import DEFAULT_CHANNEL_LAYER
from channels.consumer.client_limits import NO_LIMITS, ClientLimits, ClientMeter, meter_of
from channels.consumer.driver import Driver, is_current
from channels.consumer.handlers import (
    find_handler,
    get_handler_name,
    log_no_layer,
    log_unknown,
    no_layer_text,
    verbs_of,
)
from channels.consumer.line import Line, name_of
from channels.consumer.times import HandlerTimes
from channels.db import are_left_open, close_left_open, watch_connections
from channels.exceptions import (
    ClientDisconnected,
    ClientLimitExceeded,
    StopConsumer,
    UnknownMessageType,
    is_disconnection,
    mark_logged,
)
from channels.fanout.delivery import OUTBOUND
from channels.kit.doors import Sink, find_context, find_sink
from channels.kit.histograms import measuring
from channels.kit.mailbox import DEFAULT_BOUNDS, MailboxBounds
from channels.kit.printable import printable
from channels.kit.tracing import tracing
from channels.kit.types import Application, Message, Receive, Scope, Send
from channels.server.cuts import cut_off
from channels.sessions import save_if_modified
from channels.signals import announce, consumer_finished, consumer_started

logger = logging.getLogger("django.channels")

#: What ends a WebSocket, or answers its handshake otherwise than by accepting it.
ENDS: Final = frozenset({"websocket.close", "websocket.http.response.start"})

#: What is asked of `channel_layer`, which is None where none is configured.
LAYER_VERBS: Final = frozenset({"send", "group_send", "group_add", "group_discard"})

#: RFC 6455 section 7.4.2's registry: "Try Again Later".
CLOSE_TRY_AGAIN_LATER = 1013


class AsyncConsumer:
    """Handles the events of one connection with coroutine methods named after their types.

    Order: one handler at a time, in the order of arrival; client and layer events in turn.  The
    event loop turns between two: a task that a handler creates begins before the next handler.
    End: when a handler raises StopConsumer or anything else, or has handled the client's last
    event.  StopConsumer closes an open WebSocket with 1000, and refuses one that was not accepted.
    On every way out the consumer's channel is detached from its layer.
    """

    _sync: ClassVar[bool] = False
    _verbs: ClassVar[frozenset[str]]
    _takes_frames: ClassVar[bool] = True
    #: True if no class stands between `dispatch` or `send` and this one's.
    _dispatches_plainly: ClassVar[bool] = True
    _sends_plainly: ClassVar[bool] = False
    #: Made when the first handler is timed.
    _times: ClassVar[HandlerTimes | None] = None

    #: Which of CHANNEL_LAYERS the consumer listens to.
    channel_layer_alias = DEFAULT_CHANNEL_LAYER
    #: Seconds that a handler may go on after the client has gone; then it is cancelled and the
    #: disconnect handler runs, with as much time again.  None: for ever.
    close_timeout: float | None = 10.0
    #: How many layer events may wait for the consumer, and what happens beyond that.
    mailbox_bounds: MailboxBounds = DEFAULT_BOUNDS
    #: What one client may do; a WebSocket that is over it is closed.
    client_limits: ClientLimits = NO_LIMITS

    scope: Scope
    channel_layer: Any = None
    channel_name: str
    base_send: Callable[[Message], Any]
    #: `send` as the server, or another consumer of the same connection, has given it.
    _shared_send: Send | None = None
    _line: Line
    #: The loop that serves the connection, and its thread; None: a test has made the consumer and
    #: serves none.
    _home: asyncio.AbstractEventLoop | None = None
    _home_thread: int | None = None
    #: Our own server's `send`, if nothing stands before it: it raises no foreign errors.
    _direct_send: Send | None = None
    #: True once the consumer itself has closed the connection.
    _closed = False
    _meter: ClientMeter | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._prepare()

    @classmethod
    def _prepare(cls) -> None:
        if not isinstance(cls.client_limits, ClientLimits):
            raise TypeError(
                f"{cls.__qualname__}.client_limits={cls.client_limits!r}: expected a ClientLimits "
                "(channels.consumer)."
            )
        cls._verbs = verbs_of(cls)
        cls._times = None
        # Ready frames pass the consumer by, so a class that looks at them gets events instead.
        ours = cls.dispatch.__module__.partition(".")[0] == "channels"
        cls._takes_frames = ours and not hasattr(cls, "websocket_send")
        cls._dispatches_plainly = cls.dispatch is AsyncConsumer.dispatch

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # The class itself as an application: `path("ws/", ChatConsumer)` without as_asgi().
        if len(args) == 3 and isinstance(args[0], dict) and callable(args[1]) and callable(args[2]):
            return cls.as_asgi(**kwargs)(*args)
        return super().__new__(cls)

    def __init__(self, scope: Scope | None = None) -> None:
        # ASGI 2 and Channels 2 make the instance with the scope and call it with the rest.
        if scope is not None:
            self.scope = scope

    @markcoroutinefunction
    def __call__(
        self, scope: Scope | Receive, receive: Receive | Send, send: Send | None = None
    ) -> Coroutine[Any, Any, None]:
        """Serve one connection, until it ends or a handler raises.

        Also called as ASGI 2 does, with `(receive, send)` on an instance made with the scope.
        """
        if send is None:
            return self._serve(self.scope, cast(Receive, scope), cast(Send, receive))
        return self._serve(cast(Scope, scope), cast(Receive, receive), send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") == "lifespan" and not hasattr(self, "lifespan_startup"):
            # A consumer alone is the whole application.  ASGI's lifespan specification: servers
            # "should continue without" it after an exception; before `receive` that is no incident.
            raise ValueError(f"{type(self).__qualname__} takes no part in lifespan.")
        watch_connections()
        self._home, self._home_thread = asyncio.get_running_loop(), threading.get_ident()
        self.scope = scope
        self.base_send = self._sender(send)
        self._shared_send = send
        sink = find_sink(scope, send)
        if sink is not None and self._sends_plainly:
            self._direct_send = send
        if scope.get("type") == "websocket":
            self._meter = meter_of(self.client_limits)
        self._line = line = Line(scope, receive, self.mailbox_bounds, self.close_timeout)
        line.mailbox.on_overflow = self._overflow
        try:
            await announce(consumer_started, type(self), scope)
            await self._open_channel(line, sink if self._takes_frames else None)
            if await self._handle_all(line):
                await self._close_in_order(line, send)
        except Exception as error:
            await self._report(error, line.handling)
            raise
        finally:
            try:
                await line.close()
            finally:
                await self._leave()
                await announce(consumer_finished, type(self), scope)

    async def _open_channel(self, line: Line, sink: Sink | None) -> None:
        # By the name that the package shows, which tests replace.
        find_layer = sys.modules[__package__].get_channel_layer
        self.channel_layer = find_layer(self.channel_layer_alias)
        if self.channel_layer is None and self.channel_layer_alias != DEFAULT_CHANNEL_LAYER:
            log_no_layer(type(self), self.channel_layer_alias)
        if self.channel_layer is not None:
            if self.scope.get("server") and hasattr(self.channel_layer, "adopt_loop"):
                # A server's loop stays, a test's does not: the layer may do its I/O here.
                self.channel_layer.adopt_loop()
            self.channel_name = await self.channel_layer.new_channel()
            is_websocket = self.scope.get("type") == "websocket"
            most_groups = self.client_limits.groups if is_websocket else None
            line.attach(self.channel_layer, self.channel_name, sink, most_groups=most_groups)

    def channel_receive(self) -> Any:
        """The next message of the consumer's channel, which it gets by itself."""
        return self.channel_layer.receive(self.channel_name)

    async def _handle_all(self, line: Line) -> bool:
        """True if a handler has ended the consumer, False if the client's last event has."""
        get = line.mailbox.get if line.is_direct else line.get
        driver = self._driver(line)
        while not line.is_over:
            was_idle, line.handling = line.handling is None, None
            try:
                if not was_idle and line.mailbox.settle():
                    await asyncio.sleep(0)
                if driver is not None:
                    goes_on = await driver.step()
                else:
                    line.handling = message = await get()
                    goes_on = await self._handle(message)
                if not goes_on:
                    return True
            except asyncio.CancelledError:
                if not line.was_cut():
                    raise
                driver, get = None, line.get_last
            except ClientLimitExceeded as error:
                if self.scope.get("type") != "websocket":
                    raise
                cut_off(error.reason, self.scope.get("client"), str(error))
                self._send_away(line, error.close_code)
                driver, get = None, line.get_last
            except (ClientDisconnected, ExceptionGroup) as error:
                if not is_disconnection(error):
                    raise
                # No failure of the handler's, and `disconnect` is still owed.
                driver, get = None, line.get_last
        return False

    async def _close_in_order(self, line: Line, send: Send) -> None:
        """Close a WebSocket that is still open, without an error for its client."""
        if self.scope.get("type") != "websocket" or self._closed or line.mailbox.gone:
            return
        # Its client may go meanwhile, and a subclass may have closed it past our verbs.
        with contextlib.suppress(Exception):
            await send({"type": "websocket.close"})

    def _driver(self, line: Line) -> Driver | None:
        """What saves waking the task for each event, under our own server."""
        context = find_context(self.scope) if line.is_direct and not self._sync else None
        if context is None or not is_current(context):
            # A task between the server and this consumer, or a handler that waits for a thread.
            return None
        return Driver(line, self._handle, context)

    async def _handle(self, message: Message) -> bool:
        """Handle an event; False if its handler ended the consumer by StopConsumer."""
        if are_left_open():
            await close_left_open()
        if self._meter is not None and message.get("type") == "websocket.receive":
            self._meter.take(message)
        goes_on = True
        began = monotonic() if measuring.is_on else None
        span = None if tracing.tracer is None else tracing.tracer.begin(self, message)
        try:
            if not self._dispatches_plainly:
                await self.dispatch(message)
            elif (handled := self._begin(message)) is not None:
                await handled
        except StopConsumer:
            # Not kept in a variable: with its traceback it would keep this consumer in memory.
            goes_on = False
        finally:
            if span is not None:
                span.end(sys.exception())
            if began is not None:
                times = self._times or self._make_times()
                times.observe(self, message, self._line.mailbox, began)
        if "session" in self.scope:
            await save_if_modified(self.scope)
        return goes_on

    @classmethod
    def _make_times(cls) -> HandlerTimes:
        cls._times = times = HandlerTimes(cls)
        return times

    async def _leave(self) -> None:
        """Release what a subclass holds; called last on every way out."""
        await close_left_open()

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message.

        Raises:
            UnknownMessageType: If the message's type is missing, malformed, or names no handler.
        """
        handled = self._begin(message)
        if handled is not None:
            await handled

    def _begin(self, message: Message) -> Awaitable[Any] | None:
        """What `dispatch` awaits: the handler's coroutine, or a frame's sending."""
        if message.get("type") == OUTBOUND and self._is_frame(message):
            return None if self._closed else AsyncConsumer.send(self, outbound(message))
        handled: Awaitable[Any] | None = find_handler(self, message, self._verbs)(message)
        return handled or no_coroutine(self, get_handler_name(message))

    async def send(self, message: Message) -> None:
        """Send an ASGI event to the server; from any event loop, in any thread.

        Raises:
            ClientDisconnected: If the client has gone; uncaught, it leads to `disconnect`.
        """
        if self._is_elsewhere() and self._home is not None:
            # Some packages run what they send in a loop of their own; no socket may be used there.
            there = asyncio.run_coroutine_threadsafe(AsyncConsumer.send(self, message), self._home)
            await asyncio.wrap_future(there)
            return
        if message.get("type") in ENDS:
            self._closed = True
        try:
            await self.base_send(message)
        except ClientDisconnected:
            raise
        except OSError as error:
            # Other servers have a class of their own for it.
            raise ClientDisconnected(str(error)) from error

    def _is_elsewhere(self) -> bool:
        """True in another thread than the serving loop's.

        To ask for the loop itself takes a system call in Python 3.11, and this is asked for each
        message.
        """
        return self._home_thread is not None and self._home_thread != threading.get_ident()

    def _sender(self, send: Send) -> Callable[[Message], Any]:
        return send

    def _is_frame(self, message: Message) -> bool:
        """True for a group's outbound event, which goes to the client as it is."""
        return (
            message.get("type") == OUTBOUND
            and self.scope.get("type") == "websocket"
            and not hasattr(self, "websocket_send")
        )

    def _overflow(self) -> None:
        """The rule "close": the client is told to come back."""
        logger.warning(
            "%s is closed with %s: its consumer left more than %s messages or %s bytes unread.",
            name_of(self.scope),
            CLOSE_TRY_AGAIN_LATER,
            self.mailbox_bounds.capacity,
            self.mailbox_bounds.capacity_bytes,
        )
        self._send_away(self._line, CLOSE_TRY_AGAIN_LATER)

    def _send_away(self, line: Line, code: int) -> None:
        """Close a WebSocket, and say nothing else to its client from here on."""
        line.mailbox.on_overflow = None
        was_closed, self._closed = self._closed, True
        send = self._shared_send
        if self.scope.get("type") == "websocket" and send is not None:
            self.base_send = self._sender(_nowhere)
            if not was_closed:
                line.spawn(_close(send, code), "close")

    async def _report(self, error: Exception, message: Message | None) -> None:
        if isinstance(error, UnknownMessageType):
            log_unknown(type(self), error)
        else:
            if (
                isinstance(error, AttributeError)
                and error.obj is None
                and error.name in LAYER_VERBS
            ):
                error.add_note(no_layer_text(self.channel_layer_alias))
            logger.error(
                "Exception in %s while handling '%s': %s",
                type(self).__qualname__,
                printable(str(message.get("type"))) if message else "the connection",
                name_of(self.scope),
                exc_info=error,
                extra={"scope": self.scope},
            )
        mark_logged(error)
        await got_request_exception.asend_robust(sender=type(self), request=None, scope=self.scope)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Application:
        """An ASGI application that makes an instance, with `initkwargs`, for each connection."""

        # No coroutine of its own, which would be kept for as long as the connection.
        @markcoroutinefunction
        def app(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            consumer: AsyncConsumer = cls(**initkwargs)
            return consumer(scope, receive, send)

        app.consumer_class = cls  # type: ignore[attr-defined]
        app.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        functools.update_wrapper(app, cls, updated=())
        return app


AsyncConsumer._prepare()


def no_coroutine(consumer: object, name: str) -> NoReturn:
    """Refuse a method that gave nothing to await.

    Raises:
        TypeError: Always.
    """
    raise TypeError(
        f"{type(consumer).__name__}.{name} is not a coroutine function: write `async def`, or "
        "subclass a sync consumer."
    )


def outbound(message: Message) -> Message:
    """What a group's `websocket.send` says to the client: its text or bytes and nothing else."""
    return {
        "type": "websocket.send",
        **{key: message[key] for key in ("text", "bytes") if message.get(key) is not None},
    }


async def _nowhere(message: Message) -> None:
    """What is said to a client that is being sent away."""


async def _close(send: Send, code: int) -> None:
    # Its client may go meanwhile.
    with contextlib.suppress(OSError):
        await send({"type": "websocket.close", "code": code})
