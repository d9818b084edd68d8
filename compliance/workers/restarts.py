"""2,000 WebSockets on four workers: a message for all, a worker that is killed, three restarts.

    python -m compliance.workers.restarts [--sockets N]

Exit status 0 if a group's message reached every socket of every worker; if a worker that was killed
was replaced within a second and only its own sockets closed; and if three SIGHUPs under traffic
refused no connection and failed no request, and closed each socket once for each restart, with
1012, in its drain time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from compliance.overload.site import Site, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WORKERS: Final = 4
SOCKETS: Final = 2000
RESTARTS: Final = 3
#: Clients that send requests, each over a connection of its own.
CLIENTS: Final = 4
DRAIN_SECONDS: Final = 5.0
#: What a close may come later than the drain time on a machine that is busy.
SLACK_SECONDS: Final = 3.0
BACK_SECONDS: Final = 1.0
PATIENCE: Final = 120.0
#: A worker with so many sockets shows whether it spreads their closes.
MANY: Final = 100
SERVES: Final = re.compile(r"\(process (\d+)\) serves")

SITE: Final = """
import os

from channels.layers import get_channel_layer
from channels.layers.registry import channel_layers

channel_layers.configure(
    {"default": {"BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": {"prefix": os.getcwd()}}}
)


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "http":
        if scope["path"] == "/say":
            message = {"type": "websocket.send", "text": "news"}
            await get_channel_layer().group_send("all", message)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        return
    await consumer(scope, receive, send)


from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer


class Member(AsyncConsumer):
    async def websocket_connect(self, event):
        await self.channel_layer.group_add("all", self.channel_name)
        await self.send({"type": "websocket.accept"})
        await self.send({"type": "websocket.send", "text": str(os.getpid())})

    async def websocket_disconnect(self, event):
        raise StopConsumer

    async def websocket_send(self, event):
        await self.send(event)

    async def websocket_receive(self, event):
        await self.send({"type": "websocket.send", "text": event["text"]})


consumer = Member.as_asgi()
"""


class Crowd:
    """The sockets: each says which worker has it, counts its messages, and comes back if told."""

    def __init__(self, port: int) -> None:
        self._address = f"ws://127.0.0.1:{port}/"
        #: The worker's process of each open socket.
        self.workers: dict[int, int] = {}
        self.news: Counter[int] = Counter()
        #: When each close came, its code, and the worker's process.
        self.closes: list[tuple[float, int, int]] = []
        self.failed: Counter[str] = Counter()
        self.comes_back = True
        #: A few at a time: the machine has two processors.
        self._door = asyncio.Semaphore(50)

    async def hold(self, number: int) -> None:
        """Hold one socket until cancelled."""
        while True:
            try:
                async with self._door:
                    connection = await connect(
                        self._address, compression=None, ping_interval=None, open_timeout=PATIENCE
                    )
            except OSError as error:
                self.failed[f"refused: {error}"] += 1
                await asyncio.sleep(1)
                continue
            await self._listen(number, connection)
            if not self.comes_back:
                return
            await asyncio.sleep(random.random())

    async def _listen(self, number: int, connection: ClientConnection) -> None:
        worker = 0
        try:
            worker = self.workers[number] = int(await connection.recv())
            while await connection.recv() == "news":
                self.news[number] += 1
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            self.closes.append((time.monotonic(), code, worker))
        finally:
            self.workers.pop(number, None)
            connection.transport.abort()


class Failure(Exception):
    """What was promised and did not hold."""


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"not within {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def get(port: int, path: str) -> str:
    """The body of an answer; each over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failure(f"answered {answer[:60]!r}")
    return answer.rpartition(b"\r\n")[2].decode()


async def tell_all(site: Site, crowd: Crowd, sockets: int) -> None:
    """One message to the group: every socket gets it once."""
    before = crowd.news.total()
    await get(site.port, "/say")
    await until(lambda: crowd.news.total() - before >= sockets, "the group's message to all")
    if len(set(crowd.news.values())) != 1 or len(crowd.news) != sockets:
        raise Failure(f"messages for each socket: {Counter(crowd.news.values())}")


async def kill_one(site: Site, crowd: Crowd, sockets: int) -> str:
    """A worker ends without a word."""
    victim, its = Counter(crowd.workers.values()).most_common(1)[0]
    known = len(SERVES.findall(site.log.read_text()))
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    await until(lambda: len(SERVES.findall(site.log.read_text())) > known, "a new worker")
    seconds = time.monotonic() - began
    new = SERVES.findall(site.log.read_text())[-1]
    while await get(site.port, "/") != new:
        if time.monotonic() - began > PATIENCE:
            raise Failure("the new worker gets no connection")
    await until(lambda: len(crowd.workers) == sockets, "all sockets back")
    others = [close for close in crowd.closes if close[2] != victim]
    if others or len(crowd.closes) != its:
        raise Failure(f"{len(others)} sockets of other workers closed; {its} of its own")
    if seconds > BACK_SECONDS:
        raise Failure(f"the worker was back after {seconds:.2f} s")
    return f"worker back after {seconds:.2f} s, {its} sockets"


async def ask_on(port: int, faults: Counter[str], asked: Counter[str]) -> None:
    """Ask one request after the other."""
    while True:
        try:
            await get(port, "/")
            asked["requests"] += 1
        except (OSError, Failure) as error:
            faults[repr(error)[:80]] += 1
        await asyncio.sleep(0.01)


async def restart(site: Site, crowd: Crowd, sockets: int) -> float:
    """SIGHUP; the longest time over which one worker closed its sockets."""
    old = set(crowd.workers.values())
    before = len(crowd.closes)
    os.kill(site.pid, signal.SIGHUP)
    # One that comes back before its new worker's turn is closed once more.
    await until(
        lambda: len(crowd.workers) == sockets and not old & set(crowd.workers.values()),
        "all sockets at new workers",
    )
    closes = crowd.closes[before:]
    if wrong := Counter(code for _, code, _ in closes if code != 1012):
        raise Failure(f"closed with {wrong}")
    longest = 0.0
    for worker in old:
        times = [moment for moment, _, its in closes if its == worker]
        took = max(times, default=0.0) - min(times, default=0.0)
        longest = max(longest, took)
        if took > DRAIN_SECONDS + SLACK_SECONDS:
            raise Failure(f"a worker closed {len(times)} sockets within {took:.1f} s")
        if len(times) >= MANY and took < DRAIN_SECONDS / 2:
            raise Failure(f"a worker closed {len(times)} sockets within {took:.1f} s, not spread")
    return longest


@contextmanager
def running(*coroutines: Coroutine[Any, Any, None]) -> Iterator[None]:
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def check(site: Site, sockets: int) -> str:
    crowd = Crowd(site.port)
    faults: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    with running(*(crowd.hold(number) for number in range(sockets))):
        await until(lambda: len(crowd.workers) == sockets, "all sockets open")
        spread = sorted(Counter(crowd.workers.values()).values())
        if len(spread) != WORKERS:
            raise Failure(f"sockets of each worker: {spread}")
        await tell_all(site, crowd, sockets)
        killed = await kill_one(site, crowd, sockets)
        crowd.news.clear()
        await tell_all(site, crowd, sockets)
        with running(*(ask_on(site.port, faults, asked) for _ in range(CLIENTS))):
            longest = max([await restart(site, crowd, sockets) for _ in range(RESTARTS)])
        crowd.news.clear()
        await tell_all(site, crowd, sockets)
        crowd.comes_back = False
    if faults or crowd.failed:
        raise Failure(f"{faults + crowd.failed}")
    return (
        f"{sockets} sockets, {spread} a worker; {killed}; {RESTARTS} restarts, "
        f"{asked['requests']} requests, 0 failed, closes over {longest:.1f} s at most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    sockets = parser.parse_args().sockets
    options = ("--workers", str(WORKERS), "--drain-timeout", str(DRAIN_SECONDS), "--access-log", "")
    with serving(SITE, *options) as site:
        try:
            print(asyncio.run(check(site, sockets)))
        except Failure as error:
            print(f"FAILED: {error}")
            print(site.log.read_text()[-3000:])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
