"""A message there and back between two processes: over a layer, and by PUBLISH and SUBSCRIBE.

These twice.  Raw is what a program does that has no layer: redis-py, the library that the layers
connect with, publishes and waits for the answer, and a subscription waits for messages.  The floor
is the least that any program on asyncio can do: bare protocols that parse nothing, know a message
by its length, and never wait for the answer to PUBLISH.

Samples of the three take turns, so all see the same machine.  One task of each process waits for
what comes and sends the next, in all.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import redis.asyncio

#: Round trips in one sample.
IN_ONE = 5
#: Samples before those that count.
WARM_UP = 4
BODY = b"x" * 100
TEXT = "x" * 60


def pack(*words: bytes) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n" % len(words) + b"".join(parts)


class Bare(asyncio.Protocol):
    """Counts octets.

    Attributes:
        length: Octets of each message that is awaited.
    """

    def __init__(self, length: int = 0) -> None:
        self.length = length
        self._got = 0
        self._arrival: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        if self._got >= self.length and self._arrival is not None:
            self._got -= self.length
            arrival, self._arrival = self._arrival, None
            arrival.set_result(None)

    async def message(self) -> None:
        self._arrival = asyncio.get_running_loop().create_future()
        if self._got >= self.length:
            self._got -= self.length
            return
        await self._arrival


class Line(Protocol):
    """To the other process and from it."""

    async def send(self) -> None: ...

    async def message(self) -> None: ...


class BareLine:
    """Two bare connections."""

    def __init__(self, to: bytes, sending: asyncio.Transport, receiving: Bare) -> None:
        self._publish = pack(b"PUBLISH", to, BODY)
        self._sending = sending
        self.message = receiving.message

    async def send(self) -> None:
        self._sending.write(self._publish)


class RawLine:
    """redis-py's client and its subscription."""

    def __init__(self, to: str, client: Any, subscription: Any) -> None:
        self._to = to
        self._client = client
        self._subscription = subscription

    async def send(self) -> None:
        await self._client.publish(self._to, BODY)

    async def message(self) -> None:
        while not await self._subscription.get_message(
            ignore_subscribe_messages=True, timeout=None
        ):
            pass


async def open_raw_line(settings: Mapping[str, Any], own_end: str, other_end: str) -> RawLine:
    client = redis.asyncio.Redis(port=settings["port"])
    subscription = client.pubsub()
    await subscription.subscribe(f"raw-{settings['line']}-{own_end}")
    while not await subscription.get_message(timeout=None):
        pass
    return RawLine(f"raw-{settings['line']}-{other_end}", client, subscription)


async def open_bare_line(settings: Mapping[str, Any], own_end: str, other_end: str) -> BareLine:
    loop, port = asyncio.get_running_loop(), settings["port"]
    own, other = (f"bare-{settings['line']}-{end}".encode() for end in (own_end, other_end))
    confirmation = len(pack(b"subscribe", own)) + len(b":1\r\n")
    receiving = Bare(confirmation)
    subscribed, _ = await loop.create_connection(lambda: receiving, "127.0.0.1", port)
    subscribed.write(pack(b"SUBSCRIBE", own))
    await receiving.message()
    receiving.length = len(pack(b"message", own, BODY))
    sending, _ = await loop.create_connection(Bare, "127.0.0.1", port)
    return BareLine(other, sending, receiving)


def adopt_loop(layer: Any) -> None:
    """As a server and a worker do; a peer's layer is on the caller's loop anyway."""
    if hasattr(layer, "adopt_loop"):
        layer.adopt_loop()


async def own_channel(layer: Any, settings: Mapping[str, Any]) -> str:
    """The channel that this process reads: one of its own, or a queue."""
    channel: str = settings["channel"] or await layer.new_channel()
    return channel


async def echo(layer: Any, settings: Mapping[str, Any], say: Callable[[str, Any], None]) -> None:
    """Send back what comes, until killed."""
    adopt_loop(layer)
    lines = [await opens(settings, "there", "back") for opens in (open_bare_line, open_raw_line)]
    channel = await own_channel(layer, settings)

    async def over_layer() -> None:
        while True:
            message = await layer.receive(channel)
            await layer.send(message["back"], message)

    async def over(line: Line) -> None:
        while True:
            await line.message()
            await line.send()

    say("ready", channel)
    await asyncio.gather(over_layer(), *map(over, lines))


async def measure(layer: Any, settings: Mapping[str, Any], there: str) -> dict[str, float]:
    """Medians of the three in microseconds."""
    adopt_loop(layer)
    bare = await open_bare_line(settings, "back", "there")
    raw = await open_raw_line(settings, "back", "there")
    message = {"type": "bench.message", "text": TEXT, "back": await own_channel(layer, settings)}

    async def over_layer() -> None:
        await layer.send(there, message)
        await layer.receive(message["back"])

    async def over(line: Line) -> None:
        await line.send()
        await line.message()

    trips = {"floor_us": lambda: over(bare), "raw_us": lambda: over(raw), "layer_us": over_layer}
    samples: dict[str, list[float]] = {name: [] for name in trips}
    for number in range(WARM_UP + settings["count"]):
        for name, trip in trips.items():
            taken = await sample(trip)
            if number >= WARM_UP:
                samples[name].append(taken)
    return {name: statistics.median(taken) for name, taken in samples.items()}


async def sample(trip: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    for _ in range(IN_ONE):
        await trip()
    return (time.perf_counter() - begun) / IN_ONE * 1e6
