"""Whether a client takes what is written to it.

The system's buffer hides a slow client: it holds some MB, and asks for more only when a third of
that is free.  So progress is also what leaves that buffer, which is when the client's side has
acknowledged it.  Either is progress: bytes went from the transport into the system's buffer, or
fewer wait there than before.  That holds through TLS too, whose bytes are others than ours.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any, Final

#: How many times the watch looks within the time that a client has.
_LOOKS: Final = 4
#: macOS: bytes in the socket's send buffer.  Python has no name for it.
_SO_NWRITE: Final = 0x1024


class WriteWatch:
    """Looks for progress until it is stopped; made only while a client has something to take.

    Args:
        seconds: How long there may be none.
        position: The bytes handed to the system so far, and those that wait in its buffer.
        on_stall: Called once, when there was none for so long, with those seconds.
    """

    __slots__ = ("_loop", "_on_stall", "_position", "_seconds", "_seen", "_since", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        position: Callable[[], tuple[int, int]],
        on_stall: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._position = position
        self._on_stall = on_stall
        self._seen = position()
        self._since = loop.time()
        self._timer = loop.call_later(seconds / _LOOKS, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        handed_before, waiting_before = self._seen
        self._seen = handed, waiting = self._position()
        if handed > handed_before or waiting < waiting_before:
            self._since = now
        elif now - self._since >= self._seconds:
            self._on_stall(now - self._since)
            return
        self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)


def bytes_in_system(sock: Any) -> int:
    """Bytes that were written to a socket and that the peer's side has not acknowledged.

    On a Unix socket: that the peer has not read, and the system's own share for them.  0 where the
    system cannot tell; progress then shows late.
    """
    try:
        if sys.platform == "linux":
            count = array.array("i", [0])
            # SIOCOUTQ, by its other name.
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
            return count[0]
        if sys.platform == "darwin":
            return int(sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
    except (OSError, ValueError):
        pass  # It is closed.
    return 0
