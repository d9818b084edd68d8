"""Who takes part in a site: each serving process answers, over the channel layer, whoever asks.

status.ask     {"reply_channel": ...}   to the group, by `channels status`
status.answer  {"role", "process", "host", "version", "seconds", "numbers"}   to that channel
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from channels import __version__
from channels.exceptions import ChannelFull
from channels.kit.tasks import TaskScope
from channels.kit.types import Message
from channels.layers.group_listener import listen_to_group

logger = logging.getLogger("channels.status")

GROUP: Final = "channels.status"
#: Answers that are taken from one question.
MOST_ANSWERS: Final = 10_000

#: What a process says of itself: "connections" -> 12.
Numbers = Mapping[str, int]


@asynccontextmanager
async def answering(layer: Any, role: str, numbers: Callable[[], Numbers]) -> AsyncIterator[None]:
    """Let this process answer for as long as the context.

    Args:
        role: What it does: "edge", "worker", "interface".
        numbers: Called for each answer, on the loop.
    """
    tasks = TaskScope("status")
    tasks.spawn(_answer_for_ever(layer, role, numbers), name=f"status of {role}")
    try:
        yield
    finally:
        await tasks.close()


async def _answer_for_ever(layer: Any, role: str, numbers: Callable[[], Numbers]) -> None:
    began = time.monotonic()

    async def answer(asked: Message) -> None:
        said = _said(role, time.monotonic() - began, numbers())
        # The question may be malformed, and whoever asked may have gone.
        with suppress(TypeError, ChannelFull):
            await layer.send(asked.get("reply_channel"), said)

    def note(error: Exception) -> None:
        logger.debug("Questions for the status are not answered now: %r", error)

    await listen_to_group(layer, GROUP, answer, note)


def _said(role: str, seconds: float, numbers: Numbers) -> Message:
    return {
        "type": "status.answer",
        "role": role,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "seconds": int(seconds),
        "numbers": dict(numbers),
    }


async def ask(layer: Any, seconds: float) -> list[Message]:
    """What all processes answer within so many seconds, by role, host and process.

    Raises:
        ChannelLayerUnavailable: If the layer's backend is out of reach.
    """
    channel = await layer.new_channel("status")
    await layer.group_send(GROUP, {"type": "status.ask", "reply_channel": channel})
    found: list[Message] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while len(found) < MOST_ANSWERS:
                answer = await layer.receive(channel)
                if _is_answer(answer):
                    found.append(answer)
    return sorted(found, key=lambda each: (each["role"], each["host"], each["process"]))


def _is_answer(message: Message) -> bool:
    kinds = {"role": str, "process": int, "host": str, "version": str, "seconds": int}
    numbers = message.get("numbers")
    return isinstance(numbers, dict) and all(
        isinstance(message.get(name), kind) for name, kind in kinds.items()
    )


def as_table(answers: list[Message]) -> str:
    """Answers as lines of text, for people."""
    rows = [("role", "host", "process", "version", "up", "numbers")]
    for each in answers:
        numbers = ", ".join(f"{name} {value}" for name, value in each["numbers"].items())
        where = (each["role"], each["host"], str(each["process"]), each["version"])
        rows.append((*where, _duration(each["seconds"]), numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
