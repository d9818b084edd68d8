"""What a supervisor and its workers tell each other: lines over a pair of sockets.

    from       line                 meaning
    worker     ready                its application has started, and it accepts connections
    worker     beat                 its event loop runs
    worker     recycle REASON       it has reached a bound of its own and wants to be replaced
    supervisor drain SECONDS        another worker has taken over: end, closing WebSockets with 1012

A worker that reads the end of its socket has lost its supervisor, and stops as on SIGTERM.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

READY: Final = "ready"
BEAT: Final = "beat"
RECYCLE: Final = "recycle"
DRAIN: Final = "drain"

#: In a worker's environment: its `Assignment`, as JSON.
ASSIGNMENT: Final = "CHANNELS_WORKER"

_RECEIVE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told when it starts; numbers of descriptors that it inherits."""

    #: 1 for the first worker.
    number: int
    control: int
    #: A file whose locks keep the log lines of all processes whole.
    log_lock: int
    #: The listening sockets of each endpoint.
    sockets: Sequence[Sequence[int]]
    #: The file for its metrics.
    counts: str

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Assignment:
        """The inverse of `as_text`."""
        return cls(**json.loads(text))


class ControlLines:
    """One end of the pair of sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._left = b""

    def send(self, word: str, text: object = "") -> None:
        """Send one line; dropped if the other end does not read, or is gone."""
        try:
            self.socket.send(f"{word} {text}\n".encode(), socket.MSG_DONTWAIT)
        except OSError:
            return

    def receive(self) -> Iterator[tuple[str, str]] | None:
        """The lines that one read brings, as word and text; None at the end."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return iter(())
        except OSError:
            data = b""
        if not data:
            return None
        *lines, left = (self._left + data).split(b"\n")
        # No line is as long as this: a longer rest is nobody's word.
        self._left = left[-_RECEIVE_BYTES:]
        return (_parted(line.decode(errors="replace")) for line in lines)

    def close(self) -> None:
        self.socket.close()


def _parted(line: str) -> tuple[str, str]:
    word, _, text = line.partition(" ")
    return word, text
