"""Deploy as docs/deployment.md says, restart under traffic, and count what fails.

    python -m compliance.deployment.rolling [nginx] [haproxy]

The page's proxy stands before the page's processes; the page's loop restarts these one after the
other while clients send requests (some with a body, some that take a second) and hold WebSockets.
Exit status 0 if no request failed, and every WebSocket was closed with 1001 or 1012 and came back.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

import websockets
from compliance.deployment.stand import Stand, missing, stand
from websockets.asyncio.client import ClientConnection, connect

#: Requests that must have been answered before a run counts.
LEAST_REQUESTS = 500
CLIENTS = 8
SOCKETS = 20
#: Seconds; a run that takes longer has failed.
PATIENCE = 120.0
GOOD_CODES = {1001, 1012}

ASGI = """
import os

from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


application = ProtocolTypeRouter(
    {"http": django_application, "websocket": URLRouter([path("ws", Echo.as_asgi())])}
)
"""
URLS = """
import asyncio

from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
async def page(request, number):
    told = {"number": number, "body": len(request.body), "secure": request.is_secure()}
    return JsonResponse(told)


async def slow(request, number):
    await asyncio.sleep(1)
    return await page(request, number)


urlpatterns = [path("page/<int:number>", page), path("slow/<int:number>", slow)]
"""


@dataclass(slots=True)
class Score:
    """What became of the traffic."""

    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    reconnects: int = 0
    open_sockets: int = 0


class Client:
    """One browser: connections of a few requests each, until it is told to stop."""

    def __init__(self, place: Stand, score: Score, first: int) -> None:
        self._place = place
        self._score = score
        self._number = first

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._place.port, ssl=self._place.tls, server_hostname="example.com"
            )
            try:
                for _ in range(5):
                    fault = await self._ask(reader, writer)
                    self._score.requests += 1
                    if fault:
                        self._score.faults[fault] += 1
                        break
                    await asyncio.sleep(0.02)
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Send the next request; what is wrong with its answer, or nothing."""
        self._number += CLIENTS
        kind = random.choice(("GET", "GET", "POST", "POST", "slow"))
        method, path = ("GET", "slow") if kind == "slow" else (kind, "page")
        body = b"x" * 1000 if method == "POST" else b""
        head = (
            f"{method} /{path}/{self._number} HTTP/1.1\r\nHost: example.com\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            async with asyncio.timeout(20):
                status, text = await _answer(reader)
        except (OSError, EOFError, TimeoutError) as error:
            return f"{kind}: {type(error).__name__}"
        if status != 200:
            return f"{kind}: {status}"
        right = {"number": self._number, "body": len(body), "secure": True}
        return "" if json.loads(text) == right else f"{kind}: another's answer {text!r}"


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    _, _, after = head.partition("\r\ncontent-length:")
    body = await reader.readexactly(int(after.split("\r\n")[0]))
    return int(head.split(" ")[1]), body


class Socket:
    """One WebSocket that comes back whenever it is closed, as the page asks of browsers."""

    def __init__(self, place: Stand, score: Score) -> None:
        self._place = place
        self._score = score

    async def run(self, over: asyncio.Event) -> None:
        wait = 0.1
        while not over.is_set():
            try:
                async with self._connect() as connection:
                    self._score.open_sockets += 1
                    try:
                        await self._talk(connection, over)
                    finally:
                        self._score.open_sockets -= 1
                if connection.close_code is not None and not over.is_set():
                    self._score.closes[connection.close_code] += 1
                    self._score.reconnects += 1
                wait = 0.1
            except (OSError, EOFError, TimeoutError, websockets.WebSocketException) as error:
                self._score.faults[f"WebSocket: {error}"[:60]] += 1
                wait *= 2
            await asyncio.sleep(wait * random.random())

    def _connect(self) -> connect:
        return connect(
            "wss://example.com/ws",
            host="127.0.0.1",
            port=self._place.port,
            ssl=self._place.tls,
            server_hostname="example.com",
            origin=websockets.Origin("https://example.com"),
        )

    async def _talk(self, connection: ClientConnection, over: asyncio.Event) -> None:
        try:
            while not over.is_set():
                await connection.send("hello")
                if await connection.recv() != "hello":
                    self._score.faults["WebSocket: another's message"] += 1
                await asyncio.sleep(0.05)
        except websockets.ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code not in GOOD_CODES:
                self._score.faults[f"WebSocket: closed with {closed.rcvd}"] += 1


async def roll(place: Stand) -> tuple[Score, list[float]]:
    """Restart process after process under traffic, until there has been enough of it."""
    score, over = Score(), asyncio.Event()
    stops: list[float] = []
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(Client(place, score, number).run(over))
        for _ in range(SOCKETS):
            clients.create_task(Socket(place, score).run(over))
        await _until_open(score)
        try:
            while not stops or score.requests < LEAST_REQUESTS:
                for service in place.services:
                    stops.append(await asyncio.to_thread(service.restart))
                await _until_open(score)
        finally:
            over.set()
    return score, stops


async def _until_open(score: Score) -> None:
    while score.open_sockets < SOCKETS:  # noqa: ASYNC110 - counted by twenty tasks
        await asyncio.sleep(0.05)


def report(name: str, score: Score, stops: list[float], closed_at_least: int) -> bool:
    """Print what was counted; True if nothing failed."""
    closed = sum(count for code, count in score.closes.items() if code in GOOD_CODES)
    good = not score.faults and closed >= closed_at_least
    print(
        f"{name}: {sum(score.faults.values())} failures of {score.requests} requests, "
        f"{len(stops)} restarts, {closed} WebSockets closed with "
        f"{'/'.join(map(str, sorted(score.closes)))} and back, "
        f"longest stop {max(stops):.1f} s"
    )
    for fault, count in score.faults.most_common():
        print(f"  {count} x {fault}")
    return good


def main() -> int:
    names = tuple(sys.argv[1:]) or ("nginx", "haproxy")
    if absent := missing(names):
        print(f"Not installed: {', '.join(absent)}.  script/packages {' '.join(absent)}")
        return 2
    good = True
    for name in names:
        with stand(name, {"asgi": ASGI, "urls": URLS}) as place:
            score, stops = asyncio.run(roll(place))
            good &= report(name, score, stops, SOCKETS)
            if not good:
                print(place.proxy.written()[-3000:])
                for service in place.services:
                    print(service.log.read_text()[-1500:])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
