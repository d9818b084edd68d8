"""`channels status`: every serving process answers whoever asks."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from channels.backends.memory.layer import InMemoryChannelLayer
from channels.status import GROUP, answering, as_table, ask
from channels.worker import Worker
from tests.processes import Child

SETTINGS = """
SECRET_KEY = "x" * 50
INSTALLED_APPS = ["channels"]
ASGI_APPLICATION = "site_of_status.application"
CHANNEL_LAYERS = {{"default": {{
    "BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": {{"prefix": "{prefix}"}}
}}}}
"""
APPLICATION = """
from channels.consumer import AsyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

application = ProtocolTypeRouter(
    {"channel": ChannelNameRouter({"jobs": AsyncConsumer.as_asgi()})}
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prefix = f"status-{uuid.uuid4().hex[:8]}"
    (tmp_path / "settings_of_status.py").write_text(SETTINGS.format(prefix=prefix))
    (tmp_path / "site_of_status.py").write_text(APPLICATION)
    return tmp_path


def command(folder: Path, *words: str) -> Child:
    settings = {"DJANGO_SETTINGS_MODULE": "settings_of_status"}
    return Child(*words, cwd=folder, env=settings)


def test_a_worker_is_shown(folder: Path) -> None:
    with command(folder, "-m", "django", "runworker", "jobs", "--pythonpath", ".") as worker:
        worker.wait_for("Started worker")
        with command(folder, "-m", "channels", "status") as status:
            assert status.wait() == 0
        assert f" {worker.process.pid} " in status.output
        with command(folder, "-m", "channels", "status", "--json") as status:
            assert status.wait() == 0
        (answer,) = json.loads(status.output)
        assert (answer["role"], answer["process"]) == ("worker", worker.process.pid)
        assert answer["numbers"] == {"busy": 0}


def test_nobody_is_there(folder: Path) -> None:
    with command(folder, "-m", "channels", "status", "--wait", "0.1") as status:
        assert status.wait() == 1
    assert status.output == "channels status: nobody has answered within 0.1 s.\n"


async def test_all_answer_and_none_that_has_gone() -> None:
    layer = InMemoryChannelLayer()
    async with answering(layer, "edge", lambda: {"connections": 3}):
        async with answering(layer, "worker", lambda: {"busy": 1}):
            found = await wait_for_answers(layer, 2)
            assert [each["role"] for each in found] == ["edge", "worker"]
            assert found[0]["numbers"] == {"connections": 3}
        await wait_for_answers(layer, 1)


async def wait_for_answers(layer: Any, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        while len(found := await ask(layer, 0.05)) != count:
            pass
    return found


async def test_malformed_questions_and_answers_stop_nobody() -> None:
    layer = InMemoryChannelLayer()
    async with answering(layer, "worker", dict):
        await wait_for_answers(layer, 1)
        for question in ({}, {"reply_channel": 5}, {"reply_channel": "a b"}):
            await layer.group_send(GROUP, {"type": "status.ask", **question})
        await wait_for_answers(layer, 1)


def test_the_table() -> None:
    answer = {"host": "h", "version": "1", "type": "status.answer"}
    table = as_table(
        [
            {**answer, "role": "edge", "process": 12, "seconds": 3661, "numbers": {"a": 1, "b": 2}},
            {**answer, "role": "worker", "process": 7, "seconds": 5, "numbers": {}},
        ]
    )
    assert table.splitlines() == [
        "role    host  process  version  up       numbers",
        "edge    h     12       1        1:01:01  a 1, b 2",
        "worker  h     7        1        0:00:05",
    ]


async def test_a_worker_of_another_packages_layer_works() -> None:
    """One that knows neither groups nor channels of its own."""

    class Plain:
        async def receive(self, channel: str) -> Any:
            await asyncio.sleep(600)

    worker = Worker(object(), ["jobs"], Plain())
    running = asyncio.ensure_future(worker.run_as_owner())
    await asyncio.sleep(0)
    worker.request_stop()
    await asyncio.wait_for(running, 10)
