"""A message there and back between two processes: over a layer, and over bare Redis beside it.

The limit is the least that publish and subscribe can cost a program on asyncio: two connections of
bare protocols, no client library, an answer recognised by its length.  Samples of limit and layer
take turns, so both see the same machine.  One task of each process waits for what comes and sends
the next, in both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

#: Round trips in one sample.
IN_ONE = 5
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


class Line:
    """PUBLISH to one channel, SUBSCRIBE to another."""

    def __init__(self, to: bytes, sending: asyncio.Transport, receiving: Bare) -> None:
        self._publish = pack(b"PUBLISH", to, BODY)
        self._sending = sending
        self.message = receiving.message

    def send(self) -> None:
        self._sending.write(self._publish)


async def open_line(settings: Mapping[str, Any], own_end: str, other_end: str) -> Line:
    loop, port = asyncio.get_running_loop(), settings["port"]
    own, other = (f"{settings['line']}-{end}".encode() for end in (own_end, other_end))
    confirmation = len(pack(b"subscribe", own)) + len(b":1\r\n")
    receiving = Bare(confirmation)
    subscribed, _ = await loop.create_connection(lambda: receiving, "127.0.0.1", port)
    subscribed.write(pack(b"SUBSCRIBE", own))
    await receiving.message()
    receiving.length = len(pack(b"message", own, BODY))
    sending, _ = await loop.create_connection(Bare, "127.0.0.1", port)
    return Line(other, sending, receiving)


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
    line = await open_line(settings, "there", "back")
    channel = await own_channel(layer, settings)

    async def over_layer() -> None:
        while True:
            message = await layer.receive(channel)
            await layer.send(message["back"], message)

    async def bare() -> None:
        while True:
            await line.message()
            line.send()

    say("ready", channel)
    await asyncio.gather(over_layer(), bare())


async def measure(layer: Any, settings: Mapping[str, Any], there: str) -> dict[str, float]:
    """Medians of both in microseconds."""
    adopt_loop(layer)
    line = await open_line(settings, "back", "there")
    message = {"type": "bench.message", "text": TEXT, "back": await own_channel(layer, settings)}

    async def bare() -> None:
        line.send()
        await line.message()

    async def over_layer() -> None:
        await layer.send(there, message)
        await layer.receive(message["back"])

    for _ in range(20):
        await bare()
        await over_layer()
    samples = [(await sample(bare), await sample(over_layer)) for _ in range(settings["count"])]
    limit, cost = map(statistics.median, zip(*samples, strict=True))
    return {"limit_us": limit, "layer_us": cost}


async def sample(trip: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    for _ in range(IN_ONE):
        await trip()
    return (time.perf_counter() - begun) / IN_ONE * 1e6
