"""A client that sends any bytes at all, and reads answers without trusting them."""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

#: Longest silence, in seconds, before the server counts as hanging.
PATIENCE_SECONDS = 3.0

_READ_BYTES = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ConnectionEnded(Exception):
    """The server closed or reset the connection before a whole answer had come."""

    def __init__(self, leftover: bytes) -> None:
        super().__init__(f"The connection ended after {leftover[:200]!r}.")
        self.leftover = leftover


@dataclass(slots=True)
class Response:
    """One answer as it stood on the wire."""

    status: int
    reason: str
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    #: False if the connection ended inside the body.
    is_whole: bool = True

    def header(self, name: bytes) -> bytes | None:
        """The values of a field joined by commas, or None."""
        found = [value for key, value in self.headers if key.lower() == name]
        return b", ".join(found) if found else None

    @property
    def announces_close(self) -> bool:
        return b"close" in (self.header(b"connection") or b"").lower()


#: (server, own port) of all connections so far.
_used: set[tuple[tuple[str, int], int]] = set()


def _connect(
    address: tuple[str, int], receive_buffer_bytes: int | None, patience_seconds: float
) -> socket.socket:
    """A connection from a port that none has had before, since records are kept by the port."""
    while True:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            # Before connect: the window that the server sees is settled in the handshake.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(patience_seconds)
        made.connect(address)
        end = (address, made.getsockname()[1])
        if end not in _used:
            _used.add(end)
            return made
        # The kernel gives out a port again as soon as it may.
        made.close()


class RawClient:
    """One TCP connection.  The application's record of it is kept under `port`."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        receive_buffer_bytes: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = _connect(address, receive_buffer_bytes, patience_seconds)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.port: int = self.socket.getsockname()[1]
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send everything; False if the server had closed before it was sent."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_until_blocked(self, data: bytes, times: int, patience_seconds: float = 0.3) -> int:
        """Send `data` again and again while reading nothing; how many whole copies went out.

        Stops early when the server takes no more for `patience_seconds`, or has closed.
        """
        before = self.socket.gettimeout()
        self.socket.settimeout(patience_seconds)
        try:
            for sent in range(times):
                try:
                    self.socket.sendall(data)
                except (TimeoutError, BrokenPipeError, ConnectionResetError):
                    return sent
        finally:
            self.socket.settimeout(before)
        return times

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Go away without a farewell: TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def read_some(self) -> bool:
        """Add what comes next to `buffer`; False at the end of the stream.

        Raises:
            TimeoutError: If nothing comes.
        """
        try:
            data = self.socket.recv(_READ_BYTES)
        except (ConnectionResetError, ssl.SSLEOFError):
            return False
        self.buffer += data
        return bool(data)

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            ConnectionEnded: If the stream ends first.
        """
        while len(self.buffer) < count:
            if not self.read_some():
                raise ConnectionEnded(self.buffer)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def take_until(self, mark: bytes) -> bytes:
        """All up to and with `mark`.

        Raises:
            ConnectionEnded: If the stream ends first.
        """
        while mark not in self.buffer:
            if not self.read_some():
                raise ConnectionEnded(self.buffer)
        return self.take(self.buffer.index(mark) + len(mark))

    def read_to_end(self) -> bytes:
        """All that comes until the server closes.

        Raises:
            TimeoutError: If it stays open without a word.
        """
        while self.read_some():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def response(self, method: str = "GET") -> Response:
        """The next answer, informational ones too.

        Raises:
            ConnectionEnded: If the connection ended before a whole head.
            TimeoutError: If the server says nothing.
        """
        head = self.take_until(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        version, status, *reason = first.split(b" ", 2)
        assert version in {b"HTTP/1.1", b"HTTP/1.0"}, f"no status line: {first!r}"
        answer = Response(int(status), b"".join(reason).decode("latin-1"))
        for line in lines:
            name, colon, value = line.partition(b":")
            assert colon, f"no header field: {line!r}"
            answer.headers.append((name, value.strip()))
        if method != "HEAD" and answer.status >= 200 and answer.status not in {204, 304}:
            self._read_body(answer)
        return answer

    def _read_body(self, answer: Response) -> None:
        # RFC 9112 section 6.3: chunked, else Content-Length, else until the connection closes.
        length = answer.header(b"content-length")
        try:
            if answer.header(b"transfer-encoding") == b"chunked":
                self._read_chunks(answer)
            elif length is not None:
                while (missing := int(length) - len(answer.body)) > 0:
                    answer.body += self.take(min(missing, max(1, len(self.buffer))))
            else:
                answer.body = self.read_to_end()
        except ConnectionEnded:
            answer.is_whole = False

    def _read_chunks(self, answer: Response) -> None:
        while size := int(self.take_until(b"\r\n")[:-2], 16):
            answer.body += self.take(size)
            assert self.take(2) == b"\r\n", "a chunk ends with CRLF"
        assert self.take(2) == b"\r\n", "the server sent trailers"
