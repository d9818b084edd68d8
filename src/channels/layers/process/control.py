"""Membership of channels that another node owns: asked of that node, answered by it.

The owner's answer comes after it has joined the group, so that a group_send which follows a
group_add on the same process reaches the member.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from functools import partial
from typing import Final

from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    ClientLimitExceeded,
    MalformedEnvelope,
    NodeGone,
)
from channels.layers.envelope import Kind
from channels.layers.process.envelopes import Envelopes
from channels.layers.process.link import Link

_HEAD: Final = struct.Struct("!Q17s")
#: The name of an answer, which needs none.
_ANSWER: Final = "_.nodes"


class Control:
    """Questions to other nodes that wait for their answer, and answers to theirs; of one node."""

    def __init__(self, node: str, link: Link, envelopes: Envelopes) -> None:
        self._node = node
        self._link = link
        self._make = envelopes.make_control
        self._local = envelopes.local
        self._counters = envelopes.counters
        self._tokens = itertools.count(1)
        #: On the owner loop only.
        self._asked: dict[int, asyncio.Future[None]] = {}

    def forget_all(self) -> None:
        """The owner loop has gone, and whoever waited there."""
        self._asked = {}

    async def ask(self, kind: Kind, node: str, group: str, channel: str) -> None:
        """Have another node add its channel to a group (ADD), or take it out (DISCARD).

        Raises:
            ChannelLayerUnavailable: If the question could not be sent within `send_timeout`.
        """
        try:
            await self._link.owner.call(
                partial(self._ask_here, kind, node, group, channel), 2 * self._link.patience
            )
        except NodeGone:
            self._counters["dropped_gone"] += 1

    async def _ask_here(self, kind: Kind, node: str, group: str, channel: str) -> None:
        token = next(self._tokens)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[token] = answer
        envelope = self._make(kind, group, pack_question(token, self._node, channel))
        try:
            push = partial(self._link.transport.push_node, node, envelope)
            await self._link.do_here(len(envelope.payload), push)
            async with asyncio.timeout(self._link.outbox.send_timeout):
                await answer
        except TimeoutError:
            # No such process any more, or one that hangs: nothing to be a member.
            self._counters["unanswered"] += 1
        finally:
            self._asked.pop(token, None)

    def on_envelope(self, kind: Kind, group: str, question: bytes) -> None:
        """A question or an answer has come; on the owner loop.

        Raises:
            MalformedEnvelope: If it cannot be read, or answers what this node has not asked.
        """
        token, asker, channel = read_question(question)
        if kind is not Kind.DONE:
            obeying = self._obey(kind, group, channel, asker, question)
            self._link.owner.spawn(obeying, "channel layer membership")
            return
        if asker != self._node:
            # Numbers of questions are the same in all nodes.
            raise MalformedEnvelope(f"An answer to {asker} came to {self._node}.")
        answer = self._asked.pop(token, None)
        if answer is not None and not answer.done():
            answer.set_result(None)

    async def _obey(
        self, kind: Kind, group: str, channel: str, asker: str, question: bytes
    ) -> None:
        """Another process changes the membership of a channel of ours."""
        if not self._local.is_here(channel):
            self._counters["dropped_gone"] += 1
        elif kind is Kind.ADD:
            try:
                self._local.add(group, channel)
            except ClientLimitExceeded:
                # It is no fault of the process that asked, and the client has not asked here.
                self._counters["refused_groups"] += 1
            else:
                await self._link.join_here(group)
        else:
            self._local.discard(group, channel)
        answer = self._make(Kind.DONE, _ANSWER, question)
        try:
            push = partial(self._link.transport.push_node, asker, answer)
            await self._link.do_here(len(answer.payload), push)
        except (NodeGone, ChannelFull, ChannelLayerUnavailable):
            self._counters["unanswered"] += 1


def pack_question(token: int, node: str, channel: str) -> bytes:
    """The payload of a question from `node` about `channel`; its answer's is the same."""
    return _HEAD.pack(token, node.encode()) + channel.encode()


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
