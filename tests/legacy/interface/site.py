"""An interface server on a real socket, and this test in the place of its workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from channels.kit.limits import Timeouts
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer
from channels.legacy.interface.application import InterfaceServer
from channels.legacy.interface.options import InterfaceOptions
from tests.server.client import Client
from tests.server.shell import Shell, serve

#: Nothing takes this long that is right.
PATIENCE_SECONDS = 20.0


class Site:
    """The server, its layer, and what a worker would do by hand."""

    def __init__(self, layer: Any, interface: InterfaceServer, shell: Shell) -> None:
        self.layer = layer
        self.interface = interface
        self.shell = shell

    @property
    def url(self) -> str:
        return self.shell.url

    async def take(self, channel: str) -> Message:
        """The next message of a queue."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            message: Message = await self.layer.receive(channel)
            return message

    async def reply(self, message: Message, **content: Any) -> None:
        """Reply to the connection that a message came from."""
        await self.layer.send(message["reply_channel"], content)

    async def accept(self) -> Message:
        """Take a connect message and accept; the message."""
        connect = await self.take("websocket.connect")
        await self.reply(connect, accept=True)
        return connect

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that speaks HTTP."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.shell.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def interface(
    layer: Any = None, *, timeouts: Timeouts | None = None, **options: Any
) -> AsyncIterator[Site]:
    """Serve on a free port."""
    layer = layer or InMemoryChannelLayer()
    application = InterfaceServer(layer, InterfaceOptions(**options))
    async with serve(application, timeouts=timeouts) as shell:
        yield Site(layer, application, shell)
