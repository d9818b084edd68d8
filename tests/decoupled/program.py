"""An edge or a worker as a process: `python -m tests.decoupled.program '<settings as JSON>'`.

    {"role": "edge" or "worker", "backend": ..., "config": {...}, "options": {...},
     "on_crash": ..., "rest": {...}}

A worker runs `Counter` with that `on_crash`; `rest` are the options of the edge's server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings as django_settings


def counter(on_crash: str) -> Any:
    """A consumer that counts what its client says, answers, and does as it is told."""
    from channels.generic.websocket import AsyncWebsocketConsumer

    class Counter(AsyncWebsocketConsumer):
        state_fields = ("count",)
        count = 0

        async def connect(self) -> None:
            await self.channel_layer.group_add("all", self.socket_channel)
            await self.accept()

        async def resumed(self) -> None:
            if on_crash != "close":
                await self.send(f"resumed at {self.count}")

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            if text_data == "die once":
                die_once()
            self.count += 1
            await self.send(f"{text_data} {self.count} {os.getpid()}")

    Counter.on_crash = on_crash
    return Counter.as_asgi()


def die_once() -> None:
    """End the process, unless another one has done so."""
    mark = Path(os.environ["ONCE"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main(given: dict[str, Any]) -> None:
    """Until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    layer_settings = {"BACKEND": given["backend"], "CONFIG": given["config"]}
    django_settings.configure(
        SECRET_KEY="only for tests",
        INSTALLED_APPS=["channels"],
        CHANNEL_LAYERS={"default": layer_settings},
    )
    django.setup()
    from channels.decoupled.edge import Edge
    from channels.decoupled.options import ConnectionWorkerOptions, EdgeOptions
    from channels.decoupled.worker import ConnectionWorker
    from channels.layers import get_channel_layer
    from channels.server import Server, parse_endpoint

    layer = get_channel_layer()
    if given["role"] == "edge":
        server = Server(
            Edge(layer, EdgeOptions(**given["options"])),
            [parse_endpoint(r"tcp:port=0:interface=127.0.0.1")],
        )

        async def serve() -> None:
            await server.start()
            print(f"Listening on 127.0.0.1:{server.addresses[0][1]}", flush=True)
            stopped = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
            await stopped.wait()
            await server.stop()

        asyncio.run(serve())
    else:
        options = ConnectionWorkerOptions(**given["options"])
        ConnectionWorker(counter(given["on_crash"]), layer, options).run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
