"""`udp`: the interface server for datagrams."""

import asyncio
import contextlib
import logging
import signal
from typing import Any

from channels.layers import get_channel_layer
from django.core.management.base import BaseCommand, CommandParser

from sensors.interface import serve


class Command(BaseCommand):
    """Holds the socket until SIGTERM or Ctrl-C."""

    help = "Carries datagrams into the channel layer, and replies out of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9999)

    def handle(self, *args: Any, **options: Any) -> None:
        logging.basicConfig(level=logging.INFO)
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(self.until_stopped(options["host"], options["port"]))

    async def until_stopped(self, host: str, port: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(get_channel_layer(), host, port)
