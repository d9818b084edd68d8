"""Spans by OpenTelemetry: of requests, of WebSocket handshakes and of consumers' handlers.

    application = trace(ProtocolTypeRouter({...}))

    span                kind       parent
    GET                 server     what the client's traceparent says
    WEBSOCKET           server     the same; it ends when the handshake is answered
    ChatConsumer.news   consumer   the span in which the message was sent to the layer
    ChatConsumer.x      internal   of the client's events, `websocket_connect` in the handshake's
                                   span; the others begin a trace, with a link to the handshake

A span as long as a WebSocket would show only when that is over, and a trace of hours is of no use.
The package opentelemetry-api is needed.  Without an SDK in the process
its spans cost little and go nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Mapping
from typing import Any, Final

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate
    from opentelemetry.trace import (
        Link,
        Span,
        SpanKind,
        Status,
        StatusCode,
        get_current_span,
        get_tracer,
        set_span_in_context,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "channels.opentelemetry needs the package opentelemetry-api, version 1.27 or newer: "
        "pip install opentelemetry-api.",
        name=error.name,
    ) from error

from channels import __version__
from channels.consumer.handlers import handler_label
from channels.exceptions import StopConsumer, is_disconnection
from channels.kit.doors import DOOR, Door
from channels.kit.tracing import HandlerSpan, trace_of, tracing
from channels.kit.types import Application, Message, Receive, Scope, Send

#: In scope["extensions"]: the context with the handshake's span.
_HANDSHAKE: Final = "channels.opentelemetry"
_CONNECT: Final = "websocket.connect"
#: What answers a handshake -> the status that it stands for; None: the message has it.
_ANSWERS: Final[Mapping[str, int | None]] = {
    "websocket.accept": 101,
    "websocket.close": 403,
    "websocket.http.response.start": None,
}
_FIRST_SERVER_ERROR: Final = 500

_tracer: Final = get_tracer("channels", __version__)


def trace(application: Application, *, handlers: bool = True) -> Application:
    """An ASGI application that traces another one.

    It is the outermost, so that its spans hold all others.

    Args:
        handlers: Whether each handler of a consumer has a span, and messages carry the trace.
    """
    if handlers:
        tracing.tracer = HandlerTracer()

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _trace_request(application, scope, receive, send)
        elif scope["type"] == "websocket":
            await _trace_handshake(application, scope, receive, send)
        else:
            await application(scope, receive, send)

    return traced


async def _trace_request(
    application: Application, scope: Scope, receive: Receive, send: Send
) -> None:
    def noting_status(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            _note_status(span, message["status"])
        return send(message)

    with _tracer.start_as_current_span(
        scope["method"],
        context=propagate.extract(_headers(scope)),
        kind=SpanKind.SERVER,
        attributes=_attributes(scope),
    ) as span:
        await application(scope, receive, noting_status)


async def _trace_handshake(
    application: Application, scope: Scope, receive: Receive, send: Send
) -> None:
    parent = propagate.extract(_headers(scope))
    span = _tracer.start_span(
        "WEBSOCKET", context=parent, kind=SpanKind.SERVER, attributes=_attributes(scope)
    )
    is_answered = False

    # No coroutine: it stands before every message to the client, as long as the WebSocket lasts.
    def noting_answer(message: Message) -> Awaitable[None]:
        nonlocal is_answered
        if not is_answered and message["type"] in _ANSWERS:
            is_answered = True
            _note_status(span, _ANSWERS[message["type"]] or message["status"])
            span.end()
        return send(message)

    extensions = scope.setdefault("extensions", {})
    extensions[_HANDSHAKE] = set_span_in_context(span, parent)
    door = extensions.get(DOOR)
    if isinstance(door, Door) and door.send is send:
        # It only looks on: frames of the layer may pass by it.
        extensions[DOOR] = dataclasses.replace(door, send=noting_answer)
    try:
        await application(scope, receive, noting_answer)
    except BaseException as error:
        if not is_answered:
            _note_error(span, error)
        raise
    finally:
        # The server may keep the scope a while.
        del extensions[_HANDSHAKE]
        span.end()


class HandlerTracer:
    """Makes the spans of handlers."""

    def carry(self) -> Mapping[str, str]:
        """The current trace, as the process's propagator writes it."""
        carrier: dict[str, str] = {}
        if get_current_span().get_span_context().is_valid:
            propagate.inject(carrier)
        return carrier

    def begin(self, consumer: Any, message: Message) -> HandlerSpan:
        """Begin a handler's span, and make it the current one."""
        name = handler_label(type(consumer), message.get("type"))
        extensions = consumer.scope.get("extensions") or {}
        handshake = extensions.get(_HANDSHAKE)
        kind, links, context = SpanKind.INTERNAL, [], contexts.Context()
        if found := trace_of(message):
            kind, context = SpanKind.CONSUMER, propagate.extract(found)
        elif handshake is not None and message.get("type") == _CONNECT:
            context = handshake
        elif handshake is not None:
            links = [Link(get_current_span(handshake).get_span_context())]
        elif consumer.scope.get("type") == "http":
            context = contexts.get_current()
        span = _tracer.start_span(
            f"{type(consumer).__qualname__}.{name}",
            context=context,
            kind=kind,
            links=links,
            attributes={"channels.handler": name, "channels.consumer": type(consumer).__qualname__},
        )
        return _CurrentSpan(span, set_span_in_context(span, context))


class _CurrentSpan:
    """A handler's span, current from now until its end."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, context: contexts.Context) -> None:
        self._span = span
        self._token = contexts.attach(context)

    def end(self, error: BaseException | None) -> None:
        """Make the former span the current one, and note an error."""
        contexts.detach(self._token)
        if error is not None and not isinstance(error, StopConsumer):
            _note_error(self._span, error)
        self._span.end()


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _attributes(scope: Scope) -> dict[str, Any]:
    """What OpenTelemetry's semantic conventions for HTTP servers ask for."""
    found: dict[str, Any] = {
        "http.request.method": scope.get("method", "GET"),
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if client := scope.get("client"):
        found["client.address"] = client[0]
    if request_id := scope.get("request_id"):
        found["channels.request_id"] = request_id
    return found


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _FIRST_SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR))


def _note_error(span: Span, error: BaseException) -> None:
    if not is_disconnection(error):
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
