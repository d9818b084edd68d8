"""What backends do alike with a connection: keep one up, end with it what is under way, abandon it.

A backend names what its driver raises when a connection broke, and serves one connection; the
`Supervisor` makes the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from channels.exceptions import ChannelsError, TransportDown
from channels.kit.tasks import TaskScope

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

#: Kept, since transports warn when they are collected.
_abandoned: Final[list[Any]] = []


class Broken(ChannelsError):
    """A connection is of no use any more; the text says why."""


def unreachable(server: str, error: OSError, setting: str) -> Broken:
    """No connection to a server: its name and address, why, and the setting to correct."""
    nobody = isinstance(error, ConnectionRefusedError | FileNotFoundError)
    advice = f". Start it there, or correct {setting}" if nobody else ""
    return Broken(f"{server}: {str(error) or type(error).__name__}{advice}")


class Backoff:
    """The growing pause between attempts to connect, in seconds.

    Where nobody listens the next is a fraction of how long it has gone on already, so that
    processes are back soon after a broker that was away for a moment.  After a connection that was
    made and broke again it doubles: making them is what a busy machine has no time for.
    """

    GROWTH: Final = 1.4
    GROWTH_IF_MADE: Final = 2.0

    def __init__(self, first: float = 0.02, longest: float = 1.0) -> None:
        self._first = first
        self._longest = longest
        self._growth = self.GROWTH
        #: What the next pause may take.
        self.due = first

    def made(self) -> None:
        """There is a connection, and nothing is said yet of how long."""
        self._growth = self.GROWTH_IF_MADE

    def reset(self) -> None:
        """The connection was of use."""
        self.due = self._first

    def take(self) -> float:
        """The next pause: between half and all of what is due."""
        seconds = self.due * (0.5 + random.random() / 2)
        self.due = min(self._longest, self.due * self._growth)
        self._growth = self.GROWTH
        return seconds


class Supervisor:
    """Keeps one connection up.

    Args:
        name: What is connected to, for the log.
        serve: Connects, calls `up`, and returns when nothing more is to be done; raises why the
            connection ended otherwise.
        errors: What `serve` raises when a connection cannot be made or broke, beside `Broken`,
            `TransportDown` and OSError.  Anything else is a bug, which is logged (once, if it comes
            again and again) and must not end the connection for good.
        on_down: Told why there is no connection, after each attempt.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[], Awaitable[None]],
        errors: tuple[type[Exception], ...],
        on_down: Callable[[BaseException], None],
        backoff: Backoff | None = None,
    ) -> None:
        self.backoff = backoff or Backoff()
        self._name = name
        self._serve = serve
        self._errors: tuple[type[Exception], ...] = (Broken, TransportDown, OSError, *errors)
        self._on_down = on_down

    async def run(self) -> None:
        """Be connected until cancelled, or until `serve` returns."""
        logged = ""
        while True:
            try:
                await self._serve()
            except self._errors as error:
                logger.debug("No connection to %s: %s", self._name, error)
                self._on_down(error)
            except Exception as error:
                if repr(error) != logged:
                    logged = repr(error)
                    logger.exception(
                        "Unexpected error in the connection to %s; reconnecting", self._name
                    )
                self._on_down(error)
            else:
                return
            await asyncio.sleep(self.backoff.take())


class OpenConnection:
    """A connection that is open until `fail`, and the operations that end with it.

    A subclass names the server, what its driver raises when a connection broke, and which of these
    errors are the broker's answer to one operation and break nothing.
    """

    name: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    answers: ClassVar[tuple[type[Exception], ...]]

    def __init__(self) -> None:
        #: Done, with the reason, once the connection is of no use any more.
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._broken: tuple[type[Exception], ...] = (Broken, OSError, *self.errors)
        self._scope = TaskScope(f"connection to {self.name}")

    def fail(self, reason: object) -> None:
        """Give the connection up, unless that was done already."""
        if not self.ended.done():
            self.ended.set_result(f"{self.name}: {str(reason) or type(reason).__name__}")

    async def until_ended(self) -> NoReturn:
        """Raise `Broken` when the connection has ended."""
        await asyncio.wait([self.ended])
        raise Broken(self.ended.result())

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that is cancelled when the connection ends; its error is its awaiter's."""
        return self._scope.spawn(work, on_done=_retrieve)

    async def carry_out(self, work: Coroutine[Any, Any, T], *, is_call: bool = False) -> T:
        """The result of an operation, in a task that takes its place in the order at once.

        Args:
            is_call: It goes on if its caller is cancelled, for the driver's sake.

        Raises:
            TransportDown: If the connection ended before, or because of it.
        """
        try:
            task = self.spawn(work)
        except RuntimeError:
            raise TransportDown(self._reason) from None
        return await self.outcome(asyncio.shield(task) if is_call else task)

    async def outcome(self, work: Awaitable[T]) -> T:
        """The result of a task of `spawn`, or of a coroutine; errors as for `carry_out`."""
        try:
            return await work
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            self.fail("an operation was cancelled")
            raise TransportDown(self._reason) from None
        except self.answers:
            raise
        except self._broken as error:
            # It may stand, but has no use without what this was about.
            self.fail(error)
            raise TransportDown(self._reason) from error

    @property
    def _reason(self) -> str:
        return self.ended.result() if self.ended.done() else f"{self.name}: connection closed"

    async def close(self) -> None:
        """End what is under way, and close the connection."""
        self.fail("connection closed")
        await self._scope.close()
        await self._close()

    async def _close(self) -> None:
        """Close the socket; waits for the other end for a moment at most."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Close the descriptor without the loop: it is closed, or this is a forked child."""
        raise NotImplementedError


async def run_until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run all at once; when one fails, end the others and raise its error.

    Returns when all have ended without one.
    """
    scope = TaskScope("connection")
    tasks = [scope.spawn(work, on_done=_retrieve) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await scope.close()


async def watch_silence(name: str, silent: Callable[[float], float], most: float) -> None:
    """Raise `Broken` once a connection has been silent for too long; looked at eight times in it.

    Args:
        silent: Given the loop's time, for how many seconds an answer has been awaited.
        most: Seconds.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(most / 8)
        if (seconds := silent(loop.time())) > most:
            raise Broken(f"{name} has not answered for {seconds:.1f} s")


def abandon(transport: asyncio.BaseTransport) -> None:
    """Close a connection whose event loop is closed, or another process's, without a word.

    The peer is not told: in a forked child the parent uses the same connection.
    """
    _abandoned.append(transport)
    found = transport.get_extra_info("socket")
    if found is not None:
        detach(found.fileno())


def detach(descriptor: int) -> None:
    """Have a descriptor lead nowhere.

    It is replaced, not closed: who still holds its number must not close another's later, and an
    epoll that a forked parent shares must not be touched.
    """
    if descriptor >= 0:
        nowhere = os.open(os.devnull, os.O_RDWR)
        with contextlib.suppress(OSError):
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Whoever awaits it is told its error."""
    if not task.cancelled():
        task.exception()
