"""An edge behind our server and workers, in one process, over one layer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from channels.decoupled.edge import Edge
from channels.decoupled.options import ConnectionWorkerOptions, EdgeOptions
from channels.decoupled.worker import ConnectionWorker
from channels.kit.limits import Timeouts
from channels.kit.types import Application, Receive, Scope, Send
from channels.layers import InMemoryChannelLayer
from tests.server.shell import Shell, eventually, serve

#: Heartbeats that let a test end soon; on a busy machine one may be late.
QUICK: dict[str, Any] = {"heartbeat": 0.3, "heartbeat_misses": 4}


def of_connections(application: Application) -> Application:
    """An application that takes no part in lifespan."""

    async def application_of(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("It has none.")
        await application(scope, receive, send)

    return application_of


class House:
    """One edge, its server, and workers that come and go."""

    def __init__(self, layer: Any, edge: Edge, shell: Shell) -> None:
        self.layer = layer
        self.edge = edge
        self.shell = shell
        self.workers: dict[ConnectionWorker, asyncio.Task[None]] = {}

    async def start_worker(self, application: Any, **options: Any) -> ConnectionWorker:
        """A worker that takes connections from now on."""
        worker = ConnectionWorker(
            application, self.layer, ConnectionWorkerOptions(**{**QUICK, **options})
        )
        self.workers[worker] = asyncio.create_task(worker.handle())
        return worker

    async def stop_worker(self, worker: ConnectionWorker) -> None:
        """Stop it in order."""
        task = self.workers.pop(worker)
        worker.request_stop()
        await asyncio.wait_for(task, 20)

    async def until(self, **counts: int) -> None:
        """Wait until the edge's statistics have these values."""
        await eventually(lambda: counts.items() <= self.edge.statistics().items())


@contextlib.asynccontextmanager
async def house(
    *, timeouts: Timeouts | None = None, layer: Any = None, **options: Any
) -> AsyncIterator[House]:
    """An edge that is served; at the end nothing of it may be left."""
    before = asyncio.all_tasks()
    layer = layer or InMemoryChannelLayer()
    edge = Edge(layer, EdgeOptions(**{**QUICK, **options}))
    await edge.start()
    try:
        async with serve(edge, timeouts=timeouts) as shell:
            made = House(layer, edge, shell)
            try:
                yield made
            finally:
                for worker in list(made.workers):
                    worker.hurry()
                    await made.stop_worker(worker)
    finally:
        await edge.stop()
    assert asyncio.all_tasks() == before
