"""A server in its own process, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.hostile.client import RawClient
from tests.hostile.frames import WebSocketClient, close, text

T = TypeVar("T")
C = TypeVar("C", bound=RawClient)

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for anything that the server does by itself: end a task, start, stop.
DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """What is alive in the server's process."""

    tasks: list[str]
    descriptors: int
    resident_bytes: int
    cpu_seconds: float
    tracebacks: list[str]
    log_bytes: int
    log: list[str]
    #: What kept the loop from turning for too long, each with its stack.
    held: list[str]


def wait_until(look: Callable[[], T], done: Callable[[T], bool]) -> T:
    """Look again and again until `done`, or the deadline; gives what was seen last."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        seen = look()
        if done(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.01)


class ServerProcess:
    """Starts a server, asks it questions, ends it."""

    def __init__(self, options: dict[str, dict[str, Any]]) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE_SECONDS)
        self.address: tuple[str, int] = listening.getsockname()
        self.tls: ssl.SSLContext | None = None
        if "tls" in options:
            # A TLS endpoint binds its own port: the one that was free a moment ago.
            listening.close()
            options["tls"]["port"] = self.address[1]
            self.tls = ssl.create_default_context(cafile=options["tls"]["certificate"])
        self._line = ours
        self._answers = ours.makefile("rb")
        with listening, theirs:
            fds = (max(0, listening.fileno()), theirs.fileno())
            server = os.environ.get("HOSTILE_SERVER", "channels")
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.hostile.serve"),
                    *(server, *map(str, fds), json.dumps(options)),
                ],
                pass_fds=fds,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            if self.tls is not None:
                wait_until(self._listens, bool)
            self._warm_up()
            self.calm = self.state()
        except BaseException:
            self.kill()
            raise

    def _listens(self) -> bool:
        try:
            socket.create_connection(self.address, 1).close()
        except OSError:
            return False
        return True

    def _warm_up(self) -> None:
        # What is imported or allocated on first use must not count as left over.
        for _ in range(3):
            self.assert_serves()
        self.ask("forget")

    def ask(self, question: str, **details: Any) -> Any:
        self._line.sendall(json.dumps({"ask": question, **details}).encode() + b"\n")
        return json.loads(self._answers.readline())

    def state(self) -> State:
        found: dict[str, Any] = self.ask("state")
        return State(**found)

    def seen(self, port: int) -> list[str]:
        """What the application wrote down about the connection from this port."""
        found: list[str] = self.ask("seen", port=port)
        return found

    def sees(self, port: int, *notes: str) -> None:
        """Assert that the application comes to see exactly this."""
        wanted = list(notes)
        seen = wait_until(lambda: self.seen(port), lambda found: found == wanted)
        assert seen == wanted

    def client(self, kind: type[C]) -> C:
        """A client that is patient and, where the server speaks TLS, speaks it too."""
        return kind(self.address, patience_seconds=DEADLINE_SECONDS, tls=self.tls)

    def assert_serves(self) -> None:
        """An ordinary request and an ordinary WebSocket are answered."""
        with self.client(RawClient) as client:
            client.send(b"GET /well HTTP/1.1\r\nHost: hostile.test\r\nConnection: close\r\n\r\n")
            answer = client.response()
            assert (answer.status, answer.body) == (200, b"GET /well 0")
        with self.client(WebSocketClient) as client:
            client.open()
            client.send(text("well"))
            assert str(client.read_frame()) == "text 4"
            client.send(close(1000))
            assert str(client.read_frame()) == "close 1000"
            client.read_to_end()

    def assert_calm(self) -> None:
        """The server serves, and nothing of what went before is alive: no task, no socket."""
        self.assert_serves()
        state = wait_until(
            self.state,
            lambda now: (
                len(now.tasks) <= len(self.calm.tasks) and now.descriptors <= self.calm.descriptors
            ),
        )
        left = sorted(set(state.tasks) - set(self.calm.tasks))
        assert len(state.tasks) <= len(self.calm.tasks), f"tasks left over: {left}"
        assert state.descriptors <= self.calm.descriptors, "descriptors left over"

    def assert_turned(self) -> None:
        """No client has kept the server's loop from turning, by its thread's processor time."""
        held = self.state().held
        assert not held, "\n".join(["the loop did not turn for", *held])

    def terminate(self) -> None:
        """Ask it to stop, as an init system does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status.

        Raises:
            subprocess.TimeoutExpired: If it is still there after the deadline.
        """
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """End it at once and release what belongs to it."""
        self.process.kill()
        self.process.wait()
        self._answers.close()
        self._line.close()
