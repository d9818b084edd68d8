"""Redis, and a connection to watch it by."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

from benchmarks.layers.server import Broker, Meter, NotInstalled, Server, free_port

#: Commands that put a message into Redis, ours and a peer's.
CARRIERS = {"xadd", "publish", "rpush", "lpush", "zadd"}
CALLS = re.compile(r"cmdstat_(\w+):calls=(\d+),.*")


class Redis(Broker):
    """redis-server, or valkey-server."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise NotInstalled("neither redis-server nor valkey-server")
        self.port = free_port()
        self._control: socket.socket | None = None
        self._server = Server(
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            ],
            folder,
        )

    @property
    def config(self) -> dict[str, Any]:
        return {"hosts": [f"redis://127.0.0.1:{self.port}"]}

    def start(self) -> None:
        self._server.start(lambda: self.command("PING") == "PONG")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        super().end(number)

    def kill_connections(self) -> None:
        for kind in ("normal", "pubsub"):
            self.command(f"CLIENT KILL TYPE {kind} SKIPME yes")

    def meter(self) -> Meter:
        lines = [line.partition(":") for line in self.command("INFO stats").splitlines()]
        found = {name: value for name, _, value in lines}
        traffic = int(found["total_net_input_bytes"]) + int(found["total_net_output_bytes"])
        connections, commands = "total_connections_received", "total_commands_processed"
        return Meter(int(found[connections]), int(found[commands]), traffic, self._messages())

    def _messages(self) -> int:
        lines = self.command("INFO commandstats").splitlines()
        calls = [CALLS.fullmatch(line) for line in lines]
        return sum(int(found[2]) for found in calls if found and found[1] in CARRIERS)

    def command(self, text: str) -> str:
        """One command on the control connection, which is opened once.

        Raises:
            OSError: If Redis does not answer.
            RuntimeError: If it answers with an error.
        """
        if self._control is None:
            self._control = socket.create_connection(("127.0.0.1", self.port), 5)
        self._control.sendall(text.encode() + b"\r\n")
        answer = b""
        while not is_whole(answer):
            if not (more := self._control.recv(65536)):
                raise ConnectionError("Redis has closed the control connection.")
            answer += more
        head, _, rest = answer.decode().partition("\r\n")
        if head.startswith("-"):
            raise RuntimeError(f"{text}: {head}")
        return rest[:-2] if head.startswith("$") else head[1:]


def is_whole(answer: bytes) -> bool:
    """True if this is all of a simple string, an error, a number or a bulk string of RESP."""
    head, found, rest = answer.partition(b"\r\n")
    if not found or not head.startswith(b"$"):
        return bool(found)
    return len(rest) >= int(head[1:]) + 2
