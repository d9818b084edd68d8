"""A worker process of a cluster test: `python -m tests.cluster.worker '<settings as JSON>'`.

    {"backend": ..., "config": {...}, "channel": ..., "shutdown_timeout": ..., "databases": {...}}

It handles the channel's messages, which say what becomes of their handler:

    {"do": "work", "seconds": ...}  it returns after so long
    {"do": "hang"}                  it never returns
    {"do": "die"}                   it takes the process with it
    {"do": "fail"}                  it raises

and writes a line of JSON when a handler begins and when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from channels.kit.types import Receive, Scope, Send
from channels.worker import Worker, WorkerOptions
from tests.cluster.member import make_layer, say, use_databases


async def handle(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    while True:
        message = await receive()
        note = {"number": message["number"], "attempts": scope["lease"].attempts}
        say({"what": "began", **note})
        if message["do"] == "hang":
            await asyncio.Event().wait()
        elif message["do"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif message["do"] == "fail":
            raise LookupError("as it was told")
        await asyncio.sleep(message["seconds"])
        say({"what": "done", **note})


def work(settings: Mapping[str, Any]) -> None:
    """Until SIGTERM."""
    use_databases(settings["databases"])
    layer = make_layer(settings["backend"], settings["config"])
    options = WorkerOptions(shutdown_timeout=settings["shutdown_timeout"])
    say("ready")
    Worker(handle, [settings["channel"]], layer, options=options).run()


class WorkerProcess:
    """The test's end of such a process.

    Attributes:
        began, done: (number, attempts) of the handlers that did.

    Args:
        databases: Django's, for a layer that is in one of them.
    """

    def __init__(
        self,
        backend: str,
        config: Mapping[str, Any],
        channel: str,
        shutdown_timeout: float = 10.0,
        databases: Mapping[str, Any] | None = None,
    ) -> None:
        self.began: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []
        self._settings = {
            "backend": backend,
            "config": dict(config),
            "channel": channel,
            "shutdown_timeout": shutdown_timeout,
            "databases": dict(databases or {}),
        }
        self._reading: asyncio.Task[None]
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> WorkerProcess:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.cluster.worker", json.dumps(self._settings)),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            assert await self._process.stdout.readline() == b'"ready"\n', "it did not start"
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def end(self, number: signal.Signals) -> None:
        """Signal it and wait until it has gone and all that it wrote was read."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has gone by itself."""
        async with asyncio.timeout(20):
            await self._process.wait()
            await self._reading

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            try:
                note = json.loads(line)
            except ValueError:
                # Killed while it wrote.
                return
            (self.began if note["what"] == "began" else self.done).append(
                (note["number"], note["attempts"])
            )


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
