"""What backends share: connections that are made again, and operations that end with theirs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import pytest

from channels.backends.shell import (
    Backoff,
    Broken,
    OpenConnection,
    Supervisor,
    abandon,
    run_until_one_fails,
    watch_silence,
)
from channels.exceptions import TransportDown


class Refused(Exception):
    """A driver's."""


class Full(Refused):
    """A broker's answer to one operation."""


def test_the_pause_grows_to_its_bound_with_jitter() -> None:
    backoff = Backoff(first=0.1, longest=1.0)
    due = []
    for _ in range(20):
        due.append(backoff.due)
        assert backoff.due / 2 <= backoff.take() <= due[-1]
    assert due[:3] == pytest.approx([0.1, 0.14, 0.196])
    assert due[-1] == 1.0
    backoff.reset()
    assert backoff.due == 0.1


def test_the_pause_grows_faster_after_connections_that_did_not_last() -> None:
    def attempts(was_made: bool) -> int:
        backoff = Backoff()
        count = 0
        while backoff.due < 1.0:
            if was_made:
                backoff.made()
            backoff.take()
            count += 1
        return count

    assert attempts(True) < attempts(False)


async def test_a_connection_is_made_again_whatever_ended_it_until_it_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends: list[Exception | None] = [
        Refused("no"),
        OSError("gone"),
        Broken("silent"),
        ZeroDivisionError("a bug"),
        ZeroDivisionError("a bug"),
        None,
        Refused("never asked for"),
    ]
    told: list[BaseException] = []

    async def serve() -> None:
        if (end := ends.pop(0)) is not None:
            raise end

    with caplog.at_level(logging.ERROR, "channels.layers"):
        await Supervisor(
            "the broker", serve, (Refused,), told.append, Backoff(first=0.0, longest=0.0)
        ).run()
    kinds = [Refused, OSError, Broken, ZeroDivisionError, ZeroDivisionError]
    assert [type(error) for error in told] == kinds
    assert [str(each.exc_info and each.exc_info[1]) for each in caplog.records] == ["a bug"]
    assert len(ends) == 1


class Connection(OpenConnection):
    name = "the broker"
    errors = (Refused,)
    answers = (Full,)

    async def _close(self) -> None:
        """It has no socket."""


@pytest.mark.parametrize("is_call", [True, False])
async def test_an_operation_ends_with_its_connection(is_call: bool) -> None:
    connection = Connection()
    work = asyncio.Event().wait()
    caller = asyncio.create_task(connection.carry_out(work, is_call=is_call))
    await asyncio.sleep(0)
    connection.fail("no heartbeat")
    await connection.close()
    with pytest.raises(TransportDown, match="the broker: no heartbeat"):
        await caller
    with pytest.raises(TransportDown, match="no heartbeat"):
        await connection.carry_out(asyncio.Event().wait())
    with pytest.raises(Broken, match="no heartbeat"):
        await connection.until_ended()


@pytest.mark.parametrize("is_call", [True, False])
async def test_a_cancelled_caller_leaves_the_connection_and_perhaps_its_call(is_call: bool) -> None:
    connection = Connection()
    go, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()

    caller = asyncio.create_task(connection.carry_out(work(), is_call=is_call))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done.is_set() is is_call
    assert not connection.ended.done()
    await connection.close()


async def test_an_answer_breaks_nothing_and_any_other_error_of_the_driver_does() -> None:
    connection = Connection()

    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(Full):
        await connection.carry_out(fail(Full()))
    with pytest.raises(ZeroDivisionError):
        await connection.carry_out(fail(ZeroDivisionError()))
    assert not connection.ended.done()
    with pytest.raises(TransportDown, match="Refused"):
        await connection.carry_out(fail(Refused()))
    assert connection.ended.done()
    await connection.close()


async def test_of_works_the_first_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waited")

    async def fail() -> None:
        raise Broken("first")

    async def finish() -> None:
        ended.append("finished")

    with pytest.raises(Broken, match="first"):
        await run_until_one_fails(wait(), finish(), fail())
    assert sorted(ended) == ["finished", "waited"]
    await run_until_one_fails(finish(), finish())


async def test_a_connection_is_broken_once_it_was_silent_for_too_long() -> None:
    silences = [0.0, -1.0, 0.2]
    with pytest.raises(Broken, match=r"the broker has not answered for 0\.2 s"):
        await watch_silence("the broker", lambda _: silences.pop(0), 0.0)


async def test_an_abandoned_connection_is_still_its_other_owners() -> None:
    """As after a fork: the child has a descriptor of the same connection."""
    here, there = socket.socketpair()
    copy = here.dup()
    _, writer = await asyncio.open_connection(sock=here)
    number = writer.get_extra_info("socket").fileno()
    abandon(writer.transport)
    assert os.path.samestat(os.fstat(number), os.stat(os.devnull))
    copy.sendall(b"x")
    assert there.recv(1) == b"x"
    # The loop still watches the number; what it reads there is an end.
    writer.transport.abort()
    copy.close()
    there.close()
