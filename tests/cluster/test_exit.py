"""A process that merely uses a layer ends in silence: nothing on stderr, nothing lost, no waiting.

Scripts, commands and shells use a layer and return; none of them closes it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.member import ENVIRONMENT
from tests.cluster.sites import BROKERS, Site

MakeLayer = Callable[..., Any]

START = """
    import asyncio, os, signal, sys, threading, time, json
    from asgiref.sync import async_to_sync
    from tests.cluster.member import make_layer, use_databases
    settings = json.loads(sys.argv[1])
    use_databases(settings["databases"])
    layer = make_layer(settings["backend"], settings["config"])
"""

WAYS = {
    "asyncio.run": """
        async def main():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "x"})
            await layer.receive(channel)
            # These end with the loop.
            asyncio.create_task(layer.receive(channel))
            asyncio.create_task(layer.receive("nobody.sends"))
            await asyncio.sleep(0.05)
            await layer.send("letters", {"type": "x"})
        asyncio.run(main())
    """,
    "async_to_sync, and a forked child": """
        async_to_sync(layer.group_send)("room", {"type": "x"})
        child = os.fork()
        async_to_sync(layer.send)("letters", {"type": "x"})
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """,
    "layer.sync, and a child that does nothing": """
        layer.sync.group_send("room", {"type": "x"})
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            layer.sync.send("letters", {"type": "x"})
    """,
    "Ctrl-C": """
        async def main():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.send("letters", {"type": "x"})
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            await layer.receive(channel)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pass
    """,
}


async def run(code: str, settings: dict[str, Any]) -> str:
    """Run a program to its end; what it wrote to stderr."""
    program = textwrap.dedent(START) + textwrap.dedent(code)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, json.dumps(settings)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    async with asyncio.timeout(40):
        _, said = await process.communicate()
    return said.decode() + (f"\nexit {process.returncode}" if process.returncode else "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("site", BROKERS, indirect=True)
async def test_over_a_broker(site: Site, make_layer: MakeLayer, way: str) -> None:
    settings = {
        "backend": site.backend,
        "config": site.config(capacity=20_000, send_timeout=30.0, **site.row.options),
        "databases": site.databases(),
    }
    layer = make_layer()
    # The tables, where there are any: making them is a fresh site's first step.
    await layer.new_channel()
    assert not await run(WAYS[way], settings)
    async with asyncio.timeout(10):
        assert await layer.receive("letters") == {"type": "x"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["LocalChannelLayer", "InMemoryChannelLayer"])
async def test_without_a_broker(backend: str, way: str, folder: Path) -> None:
    config = {"directory": str(folder)} if backend == "LocalChannelLayer" else {}
    settings = {"backend": f"channels.layers.{backend}", "config": config, "databases": {}}
    assert not await run(WAYS[way], settings)
