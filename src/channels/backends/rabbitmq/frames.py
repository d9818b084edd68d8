"""Frames of the broker without what senders of messages may put there.

Anyone who may publish writes properties, headers and routing keys; one that aiormq cannot decode
would end the connection, and would come again with the next one.  The layer reads none.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final

from aiormq.connection import TransportFactory

_HEAD: Final = struct.Struct("!BHI")
_METHOD, _HEADER = 1, 2
_DELIVER: Final = struct.pack("!HH", 60, 60)
#: Of a content header: class, weight, size of the body; the flags that follow are for properties.
_FIXED: Final = 12


class ConnectedSocket(TransportFactory):
    """Gives aiormq a socket that is connected."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams = _FrameReader(reader), writer

    async def create(self, url: Any, **_: Any) -> Any:
        del url
        return self._streams


class _FrameReader:
    """What aiormq reads from, a frame at a time."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = b""
        #: Channels whose next content header belongs to a delivery.
        self._delivering: set[int] = set()

    def at_eof(self) -> bool:
        return not self._data and self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        if not self._data:
            self._data = await self._read_frame()
        found, self._data = self._data[:count], self._data[count:]
        if len(found) < count:
            raise asyncio.IncompleteReadError(found, count)
        return found

    async def _read_frame(self) -> bytes:
        head = await self._reader.readexactly(_HEAD.size)
        kind, channel, size = _HEAD.unpack(head)
        if head.startswith(b"AMQP"):
            return head
        payload = await self._reader.readexactly(size + 1)
        if kind == _METHOD and payload.startswith(_DELIVER):
            self._delivering.add(channel)
            # The consumer's tag, the delivery's, the octet with `redelivered`; then empty names.
            end = len(_DELIVER) + 1 + payload[len(_DELIVER)] + 8 + 1
            payload = payload[:end] + b"\0\0" + payload[-1:]
        elif kind == _HEADER and channel in self._delivering:
            self._delivering.discard(channel)
            payload = payload[:_FIXED] + b"\0\0" + payload[-1:]
        return _HEAD.pack(kind, channel, len(payload) - 1) + payload
