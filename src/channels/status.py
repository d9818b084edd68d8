"""Who takes part in a site: each serving process answers, over the channel layer, whoever asks.

    status.ask     {"reply_channel"}, to the group, by `channels status`
    status.answer  {"role", "process", "host", "version", "seconds", "is_draining", "numbers",
                   "queues"}, to that channel, by each process

The queues that the answers name are counted by whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from channels import __version__
from channels.exceptions import ChannelFull
from channels.kit.process_exit import process_exit
from channels.kit.tasks import TaskScope
from channels.kit.types import Message
from channels.layers.group_listener import listen_to_group

logger = logging.getLogger("channels.status")

GROUP: Final = "channels.status"
#: Answers that are taken from one question.
MOST_ANSWERS: Final = 10_000
#: Queues that are counted for one question.
MOST_QUEUES: Final = 1000

#: What a process says of itself: "connections" -> 12.
Numbers = Mapping[str, int]

#: What this process is at the moment, with its numbers; for its metrics, from any thread.
roles: Final[list[tuple[str, Callable[[], Numbers]]]] = []


@asynccontextmanager
async def answering(
    layer: Any, role: str, numbers: Callable[[], Numbers], queues: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Let this process answer for as long as the context.

    Args:
        role: What it does: "edge", "worker", "interface".
        numbers: Called for each answer, on the loop, and by `channels.metrics` on any thread.
        queues: Channels that no process owns and that it fills or reads.
    """
    tasks = TaskScope("status")
    tasks.spawn(_answer_for_ever(layer, role, numbers, queues), name=f"status of {role}")
    entry = (role, numbers)
    roles.append(entry)
    try:
        yield
    finally:
        roles.remove(entry)
        await tasks.close()


async def _answer_for_ever(
    layer: Any, role: str, numbers: Callable[[], Numbers], queues: Sequence[str]
) -> None:
    began = time.monotonic()

    async def answer(asked: Message) -> None:
        said = _said(role, time.monotonic() - began, numbers(), queues)
        # The question may be malformed, and whoever asked may have gone.
        with suppress(TypeError, ChannelFull):
            await layer.send(asked.get("reply_channel"), said)

    def note(error: Exception) -> None:
        logger.debug("Questions for the status are not answered now: %r", error)

    await listen_to_group(layer, GROUP, answer, note)


def _said(role: str, seconds: float, numbers: Numbers, queues: Sequence[str]) -> Message:
    return {
        "type": "status.answer",
        "role": role,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "seconds": int(seconds),
        "is_draining": process_exit.is_stopping,
        "numbers": dict(numbers),
        "queues": list(queues),
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


class QueueLength(NamedTuple):
    """How many messages of a queue wait, and for how many seconds the oldest has, where known."""

    queue: str
    waiting: int
    oldest: float | None


async def count_queues(layer: Any, answers: Sequence[Message]) -> list[QueueLength]:
    """What waits in the queues that these answers name; nothing where a layer does not count.

    Raises:
        ChannelLayerUnavailable: If the layer's backend is out of reach.
    """
    if not hasattr(layer, "backlog"):
        return []
    # Processes of an older release name none.
    names = sorted({name for each in answers for name in each.get("queues", ())})
    found = await asyncio.gather(*(layer.backlog(name) for name in names[:MOST_QUEUES]))
    return [QueueLength(name, *length) for name, length in zip(names, found, strict=False)]


def _is_answer(message: Message) -> bool:
    kinds = {"role": str, "process": int, "host": str, "version": str, "seconds": int}
    return (
        isinstance(message.get("numbers"), dict)
        and isinstance(message.get("queues", []), list)
        and all(isinstance(message.get(name), kind) for name, kind in kinds.items())
    )


def as_table(answers: Sequence[Message], queues: Sequence[QueueLength] = ()) -> str:
    """Answers, and the queues that they name, as lines of text for people."""
    processes = [("role", "host", "process", "version", "up", "state", "numbers")]
    for each in answers:
        numbers = ", ".join(f"{name} {value}" for name, value in each["numbers"].items())
        state = "draining" if each.get("is_draining") else "serving"
        where = (each["role"], each["host"], str(each["process"]), each["version"])
        processes.append((*where, _duration(each["seconds"]), state, numbers))
    lengths = [("queue", "waiting", "oldest")]
    for queue, waiting, oldest in queues:
        age = "" if oldest is None else _duration(int(oldest))
        lengths.append((queue, str(waiting), age))
    lines = [*_aligned(processes)]
    if queues:
        lines += ["", *_aligned(lengths)]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
