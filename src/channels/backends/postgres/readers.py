"""How queues in tables are asked for leases."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from channels.backends.postgres.calls import Call, CallQueue, Result, target_hash
from channels.exceptions import MalformedEnvelope
from channels.layers.envelope import Envelope, decode_envelope


class TableLeases:
    """`LeaseCalls` on tables.

    Args:
        prefix: As for `TableTransport`.
    """

    notes_waiting: Final = False
    #: Calls may wait there for a connection.
    is_open: Final = True

    def __init__(self, calls: CallQueue, prefix: str) -> None:
        self._calls = calls
        self._prefix = prefix

    def new_token(self) -> int:
        """The first number of a question's leases, which are that and those that follow it."""
        return (int.from_bytes(os.urandom(8)) >> 2) + 1

    def begin_lease(
        self, queue: str, token: int, count: int, seconds: float
    ) -> asyncio.Future[Result]:
        hashed = target_hash(self._prefix, "q", queue)
        return self._calls.put(Call("l", queue, hashed, token, count, deadline=int(seconds * 1000)))

    def read_leases(self, answer: Result) -> list[tuple[bytes, Envelope | bytes, int]]:
        return [(pack_token(token), *_read(payload)) for token, payload in answer.leased]

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        kind, number = "r" if counted else "u", int(delay * 1000)
        call = Call(kind, extra=read_token(token), number=number)
        return (await self._calls.put(call)).first == 1


def _read(payload: bytes) -> tuple[Envelope | bytes, int]:
    try:
        envelope = decode_envelope(payload)
    except MalformedEnvelope:
        # Its reader counts and acknowledges it.
        return payload, 1
    return envelope, envelope.attempts


def pack_token(number: int) -> bytes:
    """The number of a lease in the tables as its token."""
    return number.to_bytes(8)


def read_token(token: bytes) -> int:
    """The reverse; 0, which names no lease, for what is no token of ours."""
    return int.from_bytes(token) if len(token) == 8 and token[0] < 0x80 else 0
