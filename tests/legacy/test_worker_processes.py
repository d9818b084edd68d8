"""Workers as processes of their own, which are restarted while messages come."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync

from channels import Channel
from channels.layers import LocalChannelLayer
from channels.legacy.asgi import ChannelLayerWrapper
from tests.processes import Child

PROGRAM = """
import sys

from django.conf import settings

settings.configure(
    SECRET_KEY="only for tests",
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=sys.argv[2],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels.layers.LocalChannelLayer",
            "CONFIG": {"directory": sys.argv[1], "capacity": 1000},
            "ROUTING": {"websocket.receive": "__main__.consumer"},
        }
    },
)

from channels.asgi import channel_layers, get_channel_layer
from channels.kit.process_exit import process_exit
from channels.legacy.worker import WorkerGroup
from channels.sessions import enforce_ordering
from channels.signals import worker_ready


@enforce_ordering
def consumer(message):
    message.reply_channel.send({"order": message["order"]})
    print("handled", message["order"], flush=True)


def ready(**kwargs):
    print("ready", flush=True)


get_channel_layer()
worker_ready.connect(ready)
process_exit.run(WorkerGroup(channel_layers["default"], n_threads=2).run)
"""


def test_a_sockets_messages_keep_their_order_while_workers_are_restarted(
    short_path: Path,
) -> None:
    (short_path / "work.py").write_text(PROGRAM)
    (short_path / "sessions").mkdir()

    def worker() -> Child:
        return Child("work.py", str(short_path), "sessions", cwd=short_path)

    inner = LocalChannelLayer(directory=short_path, capacity=1000)
    layer = ChannelLayerWrapper(inner, "default", {})
    reply = layer.new_channel("websocket.send!")
    channel = Channel("websocket.receive", channel_layer=layer)
    orders = list(range(200))
    generator = random.Random(4)
    for start in range(0, 200, 8):
        block = orders[start : start + 8]
        generator.shuffle(block)
        orders[start : start + 8] = block

    def answers(count: int) -> list[Any]:
        found = []
        for _ in range(count):
            content = layer.receive([reply], block=True, timeout=30)[1]
            found.append(content and content["order"])
        return found

    with worker() as first, worker() as second:
        for each in (first, second):
            each.wait_for("^ready$")
        seen: list[Any] = []
        with worker() as third:
            for order in orders[:104]:
                channel.send({"reply_channel": reply, "order": order})
            seen += answers(40)
            assert first.stop(signal.SIGTERM) == 0
            third.wait_for("^ready$")
            for order in orders[104:]:
                channel.send({"reply_channel": reply, "order": order})
            seen += answers(100)
            assert second.stop(signal.SIGTERM) == 0
            seen += answers(60)
            for each in (first, second, third):
                each.wait_for(r"^handled \d+$")
    assert seen == list(range(200))
    async_to_sync(inner.close)()
