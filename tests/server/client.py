"""A client that says exactly what it is told to, and reads strictly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass

from channels.kit.types import Address


@dataclass
class Answer:
    """A response as it was read from the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} came more than once: {found}"
        return found[0] if found else None


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: str = "/", *lines: str) -> None:
        self.request("GET", path, *lines)

    def request(self, method: str, path: str, *lines: str, body: bytes = b"") -> None:
        head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: x", *lines))
        self.send(head.encode() + b"\r\n" + body)

    async def head(self) -> Answer:
        """The head of the next response, interim ones included."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        version, status, *_ = first.split(" ")
        assert version in {"HTTP/1.1", "HTTP/1.0"}
        pairs = [line.split(": ", 1) for line in lines]
        return Answer(int(status), [(name, value) for name, value in pairs], b"")

    async def answer(self, method: str = "GET") -> Answer:
        """The next whole response."""
        answer = await self.head()
        if method == "HEAD" or answer.status in {204, 304}:
            return answer
        if (length := answer["content-length"]) is not None:
            answer.body = await self.reader.readexactly(int(length))
        elif answer["transfer-encoding"] == "chunked":
            while piece := await self.chunk():
                answer.body += piece
        else:
            answer.body = await self.reader.read()
        return answer

    async def chunk(self) -> bytes:
        """The next chunk; the last one is empty."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; a reset is an end too."""
        data = b""
        while True:
            try:
                piece = await self.reader.read(65536)
            except ConnectionError:
                return data
            if not piece:
                return data
            data += piece

    def half_close(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Go without a goodbye; what was not read is lost."""
        if self.writer.is_closing():
            return
        sock = self.writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def connect(address: Address, tls: ssl.SSLContext | None = None) -> Client:
    host, port = address
    if port is None:
        return Client(*await asyncio.open_unix_connection(host))
    return Client(*await asyncio.open_connection(host, port, ssl=tls))
