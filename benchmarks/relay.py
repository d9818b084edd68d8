"""What asyncio itself takes to relay a message and its acknowledgement between two Unix sockets.

`python -m benchmarks.relay PATH` relays between the first two that connect to PATH.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar


class End(asyncio.Protocol):
    """One of the two; what it hears the other is told."""

    ends: ClassVar[list[End]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ends.append(self)
        self.number = len(self.ends) - 1

    def data_received(self, data: bytes) -> None:
        self.ends[1 - self.number].transport.write(data)


async def relay(path: str) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_unix_server(End, path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1]))
