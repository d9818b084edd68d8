"""Feeds bytes to an HTTP/1.1 connection in all the ways in which a network may cut them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from channels.kit.limits import Limits
from channels.wire.http1 import (
    BodyChunk,
    EndOfInput,
    Event,
    Failure,
    Http1Connection,
    HttpPhase,
)
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseStart

LIMITS = Limits()


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def in_two(data: bytes) -> Iterable[list[bytes]]:
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


WAYS: list[Callable[[bytes], list[bytes]]] = [whole, bytewise]


def read(pieces: Iterable[bytes], limits: Limits = LIMITS, *, eof: bool = False) -> list[Event]:
    """All events, each request answered at once; the pieces of one body joined."""
    connection = Http1Connection(limits)
    events: list[Event] = []
    for piece in pieces:
        connection.receive_data(piece)
        take(connection, events)
    if eof:
        connection.receive_eof()
        take(connection, events)
    return events


def take(connection: Http1Connection, events: list[Event]) -> None:
    while True:
        event = connection.next_event()
        if isinstance(event, BodyChunk) and events and isinstance(events[-1], BodyChunk):
            events[-1] = BodyChunk(events[-1].data + event.data, event.more)
        elif event is not None:
            events.append(event)
        elif connection.phase is HttpPhase.DONE and connection.response.keep_alive:
            connection.send(ResponseStart(200, []))
            connection.send(ResponseBody(b""))
            connection.data_to_send()
            connection.start_next_cycle()
        else:
            return


def outline(events: Iterable[Event]) -> list[object]:
    """Events in the short form that tables use: targets, bodies, statuses."""
    short: list[object] = []
    for event in events:
        if isinstance(event, Request):
            short.append(f"{event.method} {event.target.decode()}")
        elif isinstance(event, BodyChunk):
            short += [event.data] if event.data else []
            short += [] if event.more else ["end"]
        elif isinstance(event, EndOfInput):
            short.append("eof")
        elif isinstance(event, Failure):
            short.append(event.error.status)
    return short
