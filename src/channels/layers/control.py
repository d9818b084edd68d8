"""Membership of channels that another node owns: asked of that node, answered by it.

The owner's answer comes after it has joined the group, so that a group_send which follows a
group_add on the same process reaches the member.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Final

from channels.exceptions import MalformedEnvelope

_HEAD: Final = struct.Struct("!Q17s")


class Control:
    """Questions to other nodes that wait for their answer; on the owner loop."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._asked: dict[int, asyncio.Future[None]] = {}

    def ask(self, node: str, channel: str) -> tuple[bytes, asyncio.Future[None], int]:
        """The payload of a question from `node` about `channel`, its answer, and its token."""
        token = next(self._tokens)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[token] = answer
        return _HEAD.pack(token, node.encode()) + channel.encode(), answer, token

    def forget(self, token: int) -> None:
        """Wait for this answer no longer."""
        self._asked.pop(token, None)

    def answered(self, payload: bytes) -> None:
        """An answer has come."""
        token, _, _ = read_question(payload)
        answer = self._asked.pop(token, None)
        if answer is not None and not answer.done():
            answer.set_result(None)


def read_question(payload: bytes) -> tuple[int, str, str]:
    """(token, node that asks, channel) of a question or an answer.

    Raises:
        MalformedEnvelope: If it is none.
    """
    try:
        token, node = _HEAD.unpack_from(payload)
        return token, node.decode(), payload[_HEAD.size :].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedEnvelope(f"A control message cannot be read: {error}") from error
