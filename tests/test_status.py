"""`channels status`: every serving process answers whoever asks."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from channels.backends.memory.layer import InMemoryChannelLayer
from channels.status import GROUP, QueueLength, answering, as_table, ask, count_queues
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
import asyncio
import logging
from pathlib import Path

from channels.consumer import AsyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter


class Jobs(AsyncConsumer):
    async def job_do(self, message):
        logging.getLogger("django.channels.worker").warning("A job is under way")
        while not Path("end").exists():
            await asyncio.sleep(0.02)


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Jobs.as_asgi()})})
"""
SENDER = """
import django
django.setup()
from channels.layers import get_channel_layer
get_channel_layer().sync.send("jobs", {"type": "job.do"})
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
        found = json.loads(status.output)
        (answer,) = found["processes"]
        assert (answer["role"], answer["process"]) == ("worker", worker.process.pid)
        assert (answer["numbers"], answer["is_draining"]) == ({"busy": 0}, False)
        assert found["queues"] == [{"queue": "jobs", "waiting": 0, "oldest": None}]


def test_a_worker_that_ends_and_what_waits_are_shown(folder: Path) -> None:
    with command(folder, "-m", "django", "runworker", "jobs", "--pythonpath", ".") as worker:
        worker.wait_for("Started worker")
        with command(folder, "-c", SENDER) as sender:
            assert sender.wait() == 0
        worker.wait_for("A job is under way")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("Stopping")
        with command(folder, "-c", SENDER) as sender:
            assert sender.wait() == 0
        with command(folder, "-m", "channels", "status") as status:
            assert status.wait() == 0
        processes, queues = status.output.split("\n\n")
        assert "  draining  busy 1, taken 1" in processes
        assert re.fullmatch(r"queue  waiting  oldest\njobs   1        0:00:\d\d\n", queues)
        (folder / "end").touch()
        assert worker.wait() == 0


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
    ends = {"seconds": 5, "is_draining": True}
    table = as_table(
        [
            {**answer, "role": "edge", "process": 12, "seconds": 3661, "numbers": {"a": 1, "b": 2}},
            {**answer, "role": "worker", "process": 7, "numbers": {}, **ends},
        ],
        [QueueLength("jobs", 12, 75.5), QueueLength("thumbnails", 1, None)],
    )
    assert table.splitlines() == [
        "role    host  process  version  up       state     numbers",
        "edge    h     12       1        1:01:01  serving   a 1, b 2",
        "worker  h     7        1        0:00:05  draining",
        "",
        "queue       waiting  oldest",
        "jobs        12       0:01:15",
        "thumbnails  1",
    ]


async def test_queues_are_counted_once_whoever_names_them() -> None:
    layer = InMemoryChannelLayer()
    await layer.send("jobs", {"type": "x"})
    old: dict[str, Any] = {"numbers": {}}
    new = {"queues": ["jobs", "other"]}
    found = await count_queues(layer, [old, new, {"queues": ["jobs"]}])
    assert [(each.queue, each.waiting) for each in found] == [("jobs", 1), ("other", 0)]
    assert await count_queues(object(), [new]) == []


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
