"""Leases whose time this process keeps: of brokers that deliver and then wait for an ack."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

D = TypeVar("D")


class _Held(Generic[D]):
    """One message on lease; times are the loop's."""

    __slots__ = ("delivery", "every", "timer", "until")

    timer: asyncio.TimerHandle

    def __init__(self, delivery: D, every: float, until: float) -> None:
        self.delivery = delivery
        self.every = every
        self.until = until


class LeaseTable(Generic[D]):
    """Token -> delivery, until the lease ends.

    Args:
        run_out: Called with a delivery whose time is over, after it was removed.
        renew: Called with a delivery as often as `add` says, while its lease runs.
    """

    def __init__(
        self, run_out: Callable[[D], Any], renew: Callable[[D], Any] = lambda _: None
    ) -> None:
        self._run_out = run_out
        self._renew = renew
        self._held: dict[bytes, _Held[D]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, delivery: D, seconds: float, renew_every: float = math.inf) -> bytes:
        """Begin a lease; returns its token."""
        token = os.urandom(16)
        until = asyncio.get_running_loop().time() + seconds
        self._held[token] = held = _Held(delivery, renew_every, until)
        self._set_timer(token, held)
        return token

    def find(self, token: bytes) -> D | None:
        """What is on lease by this token."""
        held = self._held.get(token)
        return None if held is None else held.delivery

    def extend(self, token: bytes, seconds: float) -> bool:
        """Let a lease run for `seconds` from now; False if it is over."""
        held = self._held.get(token)
        if held is None:
            return False
        held.timer.cancel()
        held.until = asyncio.get_running_loop().time() + seconds
        self._set_timer(token, held)
        return True

    def end(self, token: bytes) -> D | None:
        """Remove a lease; None if it is over."""
        held = self._held.pop(token, None)
        if held is None:
            return None
        held.timer.cancel()
        return held.delivery

    def clear(self) -> None:
        """Remove all leases."""
        for token in list(self._held):
            self.end(token)

    def _set_timer(self, token: bytes, held: _Held[D]) -> None:
        loop = asyncio.get_running_loop()
        at = min(held.until, loop.time() + held.every)
        held.timer = loop.call_at(at, self._on_time, token, held)

    def _on_time(self, token: bytes, held: _Held[D]) -> None:
        if asyncio.get_running_loop().time() >= held.until:
            del self._held[token]
            self._run_out(held.delivery)
        else:
            self._renew(held.delivery)
            self._set_timer(token, held)
