"""Small ASGI applications and a way to call them, for the tests of routers and middleware."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from channels.kit.types import Message, Receive, Scope, Send
from channels.server import Server, ServerOptions, parse_endpoint


class Recorder:
    """An application that keeps the scopes it was called with, and does nothing else."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)

    @property
    def scope(self) -> Scope:
        """The only scope it was called with."""
        (scope,) = self.scopes
        return scope


async def call(application: Any, scope: Scope, *events: Message) -> list[Message]:
    """Run an application to its end with the given events to receive; what it sent."""
    waiting = list(events)
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


async def cpu_seconds_between_turns(
    application: Any, make_scope: Callable[[], Scope], rounds: int = 7
) -> list[float]:
    """Seconds of this thread's CPU that an application takes between two turns of the loop.

    Of several rounds the least for each: what other processes take from the caches is no cost.
    """
    found: list[list[float]] = []
    for _ in range(rounds):
        task = asyncio.create_task(call(application, make_scope()))
        stretches = []
        while not task.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            stretches.append(time.thread_time() - before)
        task.result()
        found.append(stretches)
    return [min(each) for each in zip(*found, strict=True)]


@contextlib.asynccontextmanager
async def serving(application: Any) -> AsyncIterator[str]:
    """Our server on a free port of this machine; its host and port."""
    endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
    server = Server(application, [endpoint], ServerOptions(lifespan="off"))
    await server.start()
    try:
        host, port = server.addresses[0]
        yield f"{host}:{port}"
    finally:
        await server.stop()
