"""500 WebSockets that come and go for twenty minutes: memory, descriptors and tasks stay.

    python -m compliance.overload.soak [--minutes 20]

Each socket joins a group, echoes, hears the group and goes, in good order or without a word; plain
requests and one error in a hundred consumers come beside it.  Exit status 0 if, once a quarter of
the time has passed, resident memory grew by less than 1 MB an hour, as a line through all readings
says, and descriptors and tasks did not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Final

from compliance.overload.site import Site, serving
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

SOCKETS: Final = 500
BAR_MB_AN_HOUR: Final = 1.0
READING_SECONDS: Final = 5.0
#: A crowd that comes and goes has now some more sockets open, now some less.
SLACK: Final = 20

SITE: Final = """
import asyncio
import random

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import InMemoryChannelLayer
from channels.layers.registry import channel_layers

channel_layers.configure({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})


class Member(AsyncWebsocketConsumer):
    async def connect(self):
        self.room = f"room{random.randrange(20)}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "fail":
            raise ValueError("told to")
        await self.channel_layer.group_send(self.room, {"type": "say", "text": text_data})

    async def say(self, event):
        await self.send(text_data=event["text"])


member = Member.as_asgi()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        return await member(scope, receive, send)
    if scope["type"] == "lifespan":
        raise NotImplementedError
    body = str(len(asyncio.all_tasks())).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the server has at one moment, with every socket gone but those of the crowd."""

    seconds: float
    resident_bytes: int
    descriptors: int
    tasks: int


async def visit(port: int, met: Counter[str]) -> None:
    """One socket's life, again and again."""
    while True:
        try:
            connection = await connect(f"ws://127.0.0.1:{port}/", ping_interval=None)
            for _ in range(random.randrange(1, 6)):
                await connection.send("x" * random.choice((10, 100, 5000)))
                await asyncio.wait_for(connection.recv(), 30)
                await asyncio.sleep(random.expovariate(0.5))
            if random.random() < 0.01:
                await connection.send("fail")
            if random.random() < 0.5:
                await connection.close()
            else:
                connection.transport.abort()
            met["visits"] += 1
        except (OSError, WebSocketException, TimeoutError) as error:
            met[type(error).__name__] += 1
        await asyncio.sleep(random.random())


def read(site: Site, began: float) -> Reading:
    """Ask from a thread: the crowd's loop may take longer to send a request than `keep_alive`."""
    connection = HTTPConnection("127.0.0.1", site.port, timeout=60)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        tasks = int(connection.getresponse().read())
    finally:
        connection.close()
    return Reading(time.monotonic() - began, site.resident_bytes(), site.descriptors(), tasks)


async def soak(site: Site, seconds: float) -> tuple[list[Reading], Counter[str]]:
    met: Counter[str] = Counter()
    began = time.monotonic()
    crowd = [asyncio.create_task(visit(site.port, met)) for _ in range(SOCKETS)]
    readings = []
    try:
        while time.monotonic() - began < seconds:
            await asyncio.sleep(READING_SECONDS)
            readings.append(await asyncio.to_thread(read, site, began))
    finally:
        for task in crowd:
            task.cancel()
    return [each for each in readings if each.seconds > seconds / 4], met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20.0)
    minutes = parser.parse_args().minutes
    with serving(SITE, "--access-log", "") as site:
        readings, met = asyncio.run(soak(site, minutes * 60))
    half = len(readings) // 2
    slope = statistics.linear_regression(
        [each.seconds / 3600 for each in readings], [each.resident_bytes / 1e6 for each in readings]
    ).slope
    grown = {
        name: max(getattr(each, name) for each in readings[half:])
        - max(getattr(each, name) for each in readings[:half])
        for name in ("descriptors", "tasks")
    }
    print(
        f"{slope:+.2f} MB an hour at {readings[-1].resident_bytes / 1e6:.0f} MB, descriptors "
        f"{grown['descriptors']:+}, tasks {grown['tasks']:+}, {met['visits']} visits"
    )
    print(dict(met))
    return 0 if slope < BAR_MB_AN_HOUR and max(grown.values()) <= SLACK else 1


if __name__ == "__main__":
    sys.exit(main())
