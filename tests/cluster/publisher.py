"""A process that sends: `python -m tests.cluster.publisher '<settings as JSON>'`.

    {"backend": ..., "config": {...}, "publisher": ..., "count": ..., "group" or "channel": ...,
     "databases": {...}}

It makes the layer, writes "ready", waits for a line, sends numbered messages, and writes how each
ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from tests.cluster.history import Outcome, PublisherLog
from tests.cluster.member import ENVIRONMENT, has_ended, make_layer, say, use_databases
from tests.cluster.traffic import every, publish


async def send(settings: Mapping[str, Any]) -> None:
    """Send all of them."""
    use_databases(settings.get("databases") or {})
    layer = make_layer(settings["backend"], settings["config"])
    await layer.new_channel()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    log = PublisherLog(settings["publisher"])
    await publish(
        layer,
        log,
        settings["count"],
        group=settings.get("group"),
        channel=settings.get("channel"),
        pause=every(20, 0.002),
    )
    say([(outcome or Outcome.UNKNOWN).value for outcome in log.outcomes])
    await layer.close()


class Publisher:
    """The test's end of such a process.  Settings as above."""

    def __init__(self, publisher: str, **settings: Any) -> None:
        self._settings = {"publisher": publisher, **settings}
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Publisher:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.cluster.publisher", json.dumps(self._settings)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            limit=1024 * 1024,
        )
        assert await self._line() == "ready", "it did not start"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def run(self) -> PublisherLog:
        """Have it send, and give what became of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        log = PublisherLog(self._settings["publisher"])
        log.outcomes = [Outcome(value) for value in await self._line()]
        await has_ended(self._process)
        return log

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            return json.loads(await self._process.stdout.readline())


if __name__ == "__main__":
    asyncio.run(send(json.loads(sys.argv[1])))
