"""A process of a cluster test: `python -m tests.cluster.member '<settings as JSON>'`.

    {"backend": ..., "config": {...}, "databases": {...}, "role": "queue" | "group", "name": ...}

`databases` are Django's, for a layer that is in one of them.  It makes the layer and reads the
channel or the group called `name`.  It writes "ready" when it can be sent to, then each message as
a line of JSON.
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

import django
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from channels.layers.aliases import find_backend
from tests.cluster.history import Mark

#: Of the processes of a test.  One that is aborted writes the stacks of its threads.
ENVIRONMENT = {
    "PYTHONPATH": ":".join(path for path in sys.path if path),
    "PYTHONFAULTHANDLER": "1",
}


def make_layer(backend: str, config: Mapping[str, Any]) -> Any:
    """A layer as settings name it, but for the prefix of a test run: not all processes know it."""
    named = find_backend(backend)
    return import_string(named.path)(**named.translate(config))


def use_databases(databases: Mapping[str, Any]) -> None:
    """Set Django up, if there are any."""
    if databases:
        django_settings.configure(DATABASES=databases)
        django.setup()


async def read(settings: Mapping[str, Any]) -> None:
    """Play the role."""
    layer = make_layer(settings["backend"], settings["config"])
    channel = settings["name"]
    if settings["role"] == "group":
        channel = await layer.new_channel()
        await layer.group_add(settings["name"], channel)
    say("ready")
    while True:
        say(await layer.receive(channel))


def say(message: object) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def has_ended(process: asyncio.subprocess.Process) -> None:
    """Wait for it; one that hangs says where, and fails the test."""
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.send_signal(signal.SIGABRT)
        await process.wait()
        raise AssertionError(f"process {process.pid} did not end; its stacks are above") from None


class Member:
    """The test's end of such a process.

    Attributes:
        marks: What it has read so far.
    """

    def __init__(
        self,
        backend: str,
        config: Mapping[str, Any],
        role: str,
        name: str,
        databases: Mapping[str, Any] | None = None,
    ) -> None:
        self.marks: list[Mark] = []
        self._settings = {
            "backend": backend,
            "config": dict(config),
            "role": role,
            "name": name,
            "databases": dict(databases or {}),
        }
        self._reading: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Member:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.cluster.member", json.dumps(self._settings)),
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            assert await self._process.stdout.readline() == b'"ready"\n', "it did not start"
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self._process.wait()
        if self._reading is not None:
            await self._reading

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)

    async def end(self) -> None:
        """SIGINT: the interpreter ends in order."""
        self.signal(signal.SIGINT)
        await has_ended(self._process)

    async def halt(self) -> None:
        """SIGSTOP, and wait until it stands still; SIGCONT lets it go on."""
        self.signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            message = json.loads(line)
            self.marks.append((message["publisher"], message["number"]))


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    use_databases(wanted["databases"])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(read(wanted))
