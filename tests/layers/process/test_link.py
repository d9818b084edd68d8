"""The line of what could not be sent: order, bounds, giving up."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.process.link import Outbox

SLOW = 30.0


class Wire:
    """Notes what is sent, or fails."""

    def __init__(self) -> None:
        self.is_up = True
        self.sent: list[int] = []

    async def send(self, number: int) -> int:
        if not self.is_up:
            raise TransportDown
        await asyncio.sleep(0)
        if not self.is_up:
            raise TransportDown
        self.sent.append(number)
        return -number


async def test_open_it_runs_at_once_and_gives_the_result() -> None:
    outbox, wire = Outbox(1.0, 10, 100), Wire()
    outbox.open()
    assert await outbox.submit(1, lambda: wire.send(5)) == -5
    assert outbox.replayed == 0


async def test_what_failed_is_sent_before_what_came_later() -> None:
    outbox, wire = Outbox(1.0, 10, 100), Wire()
    outbox.open()
    sends = submit_all(outbox, wire, range(3))
    await asyncio.sleep(0)
    wire.is_up = False
    await asyncio.sleep(0.01)
    assert not outbox.is_open
    sends += submit_all(outbox, wire, range(3, 6))
    await asyncio.sleep(0)
    wire.is_up = True
    outbox.open()
    assert await asyncio.gather(*sends) == [0, -1, -2, -3, -4, -5]
    assert wire.sent == [0, 1, 2, 3, 4, 5]
    assert len(outbox) == 0


async def test_errors_belong_to_who_submitted() -> None:
    outbox = Outbox(1.0, 10, 100)

    async def fail() -> None:
        raise LookupError

    waiting = asyncio.create_task(outbox.submit(1, fail))
    await asyncio.sleep(0)
    outbox.open()
    with pytest.raises(LookupError):
        await waiting


async def test_an_operation_that_hangs_does_not_stop_the_line() -> None:
    outbox, wire = Outbox(0.05, 10, 100), Wire()
    hanging = asyncio.create_task(outbox.submit(1, lambda: asyncio.sleep(60)))
    await asyncio.sleep(0)
    outbox.open()
    with pytest.raises(ChannelLayerUnavailable):
        await hanging
    assert await outbox.submit(1, lambda: wire.send(1)) == -1
    assert outbox.given_up == 1
    outbox.close()


async def test_why_the_backend_is_out_of_reach_is_told_until_it_is_back() -> None:
    outbox, wire = Outbox(0.02, 10, 100), Wire()
    outbox.cause = "connection refused."
    with pytest.raises(
        ChannelLayerUnavailable, match=r"send_timeout=0\.02 s: connection refused\.$"
    ):
        await outbox.submit(1, lambda: wire.send(1))
    outbox.open()
    outbox.shut()
    with pytest.raises(ChannelLayerUnavailable, match=r"send_timeout=0\.02 s\.$"):
        await outbox.submit(1, lambda: wire.send(2))
    outbox.close()


async def test_bounds() -> None:
    outbox, wire = Outbox(1.0, 2, 100), Wire()
    first = asyncio.create_task(outbox.submit(90, lambda: wire.send(1)))
    await asyncio.sleep(0)
    with pytest.raises(ChannelLayerUnavailable, match="replay_bytes=100"):
        await outbox.submit(11, lambda: wire.send(2))
    second = asyncio.create_task(outbox.submit(1, lambda: wire.send(3)))
    await asyncio.sleep(0)
    with pytest.raises(ChannelLayerUnavailable, match="replay_messages=2"):
        await outbox.submit(1, lambda: wire.send(4))
    outbox.open()
    assert (await first, await second) == (-1, -3)
    # What has left the line holds nothing of it.
    outbox.shut()
    third = asyncio.create_task(outbox.submit(100, lambda: wire.send(5)))
    await asyncio.sleep(0)
    assert len(outbox) == 1
    outbox.open()
    assert await third == -5


async def test_waiting_for_it_to_open() -> None:
    outbox = Outbox(1.0, 2, 100)
    assert not await outbox.wait_open(0.01)
    waiting = asyncio.create_task(outbox.wait_open(5))
    await asyncio.sleep(0)
    outbox.open()
    assert await waiting
    assert await outbox.wait_open(0)


async def test_the_order_of_submission_holds_whoever_hears_of_the_failure_first() -> None:
    outbox, sent = Outbox(1.0, 10, 100), []
    outbox.open()
    hears = [asyncio.Event(), asyncio.Event()]
    tries = [0, 0]

    async def send(number: int) -> None:
        tries[number] += 1
        if tries[number] == 1:
            await hears[number].wait()
            raise TransportDown
        sent.append(number)

    sends = [
        asyncio.create_task(outbox.submit(1, lambda n=n: send(n)))  # type: ignore[misc]
        for n in range(2)
    ]
    await asyncio.sleep(0)
    for number in (1, 0):
        hears[number].set()
        await asyncio.sleep(0.01)
    outbox.open()
    await asyncio.gather(*sends)
    assert sent == [0, 1]


async def test_a_failure_heard_of_after_the_reconnect_does_not_shut_it_again() -> None:
    outbox, wire, heard = Outbox(1.0, 10, 100), Wire(), asyncio.Event()
    outbox.open()

    async def fail_once() -> int:
        if not heard.is_set():
            await heard.wait()
            raise TransportDown
        return await wire.send(1)

    waiting = asyncio.create_task(outbox.submit(1, fail_once))
    await asyncio.sleep(0)
    outbox.shut()
    outbox.open()
    heard.set()
    assert await waiting == -1
    assert outbox.is_open


class Stream:
    """A connection that carries out and answers when it is told to, in the order of the calls."""

    def __init__(self) -> None:
        self.is_up = False
        self.sent: list[int] = []
        self.under_way: list[tuple[int, asyncio.Future[int]]] = []
        #: Those that broke with a connection and have not been told so yet.
        self.broken: list[asyncio.Future[int]] = []

    async def send(self, number: int) -> int:
        if not self.is_up:
            raise TransportDown
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.under_way.append((number, answer))
        return await answer

    def answer(self, count: int) -> None:
        for number, answer in self.under_way[:count]:
            self.sent.append(number)
            if not answer.done():
                answer.set_result(-number)
        del self.under_way[:count]

    def cut(self, carried_out: int) -> None:
        self.is_up = False
        self.sent += [number for number, _ in self.under_way[:carried_out]]
        self.broken += [answer for _, answer in self.under_way]
        self.under_way.clear()

    def tell(self, index: int) -> None:
        if self.broken:
            answer = self.broken.pop(index % len(self.broken))
            if not answer.done():
                answer.set_exception(TransportDown())


def submit_all(
    outbox: Outbox, to: Wire | Stream, numbers: Iterable[int]
) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(outbox.submit(1, partial(to.send, n))) for n in numbers]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_line_is_under_way_as_a_whole_before_the_first_answer() -> None:
    outbox, stream = Outbox(SLOW, 200, 10_000), Stream()
    sends = submit_all(outbox, stream, range(100))
    await turns(1)
    assert len(outbox) == 100
    stream.is_up = True
    outbox.open()
    sends += submit_all(outbox, stream, range(100, 110))
    await turns(3)
    assert [number for number, _ in stream.under_way] == list(range(110))
    assert len(outbox) == 0
    stream.answer(110)
    assert await asyncio.gather(*sends) == [-n for n in range(110)]


async def test_who_comes_while_the_line_wakes_up_queues_behind_it() -> None:
    outbox, wire = Outbox(SLOW, 10, 100), Wire()
    sends = submit_all(outbox, wire, range(3))
    await turns(1)
    outbox.open()
    assert await outbox.submit(1, lambda: wire.send(3)) == -3
    await asyncio.gather(*sends)
    assert wire.sent == [0, 1, 2, 3]


async def test_nothing_starts_before_all_failures_are_heard_of() -> None:
    outbox, stream = Outbox(SLOW, 10, 100), Stream()
    stream.is_up = True
    outbox.open()
    sends = submit_all(outbox, stream, range(3))
    await turns(2)
    stream.cut(0)
    stream.tell(1)
    await turns(2)
    stream.is_up = True
    outbox.open()
    sends.append(asyncio.create_task(outbox.submit(1, lambda: stream.send(3))))
    await turns(5)
    assert stream.under_way == []
    stream.tell(1)
    stream.tell(0)
    await turns(5)
    stream.answer(4)
    assert await asyncio.gather(*sends) == [0, -1, -2, -3]
    assert stream.sent == [0, 1, 2, 3]
    assert outbox.replayed == 3


async def test_closed_it_refuses_who_waits_and_who_comes() -> None:
    outbox, stream = Outbox(SLOW, 10, 100), Stream()
    stream.is_up = True
    outbox.open()
    sends = [asyncio.create_task(outbox.submit(1, lambda: stream.send(0)))]
    await turns(2)
    outbox.shut()
    sends.append(asyncio.create_task(outbox.submit(1, lambda: stream.send(1))))
    await turns(2)
    outbox.close()
    stream.cut(0)
    stream.tell(0)
    for send in sends:
        with pytest.raises(ChannelLayerUnavailable, match="closed"):
            await send
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        await outbox.submit(1, lambda: stream.send(2))
    assert len(outbox) == 0
    assert stream.sent == []


async def test_an_operation_that_answers_its_cancellation_with_a_failure_is_given_up() -> None:
    outbox = Outbox(0.02, 10, 100)
    outbox.open()

    async def fail() -> None:
        try:
            await asyncio.sleep(SLOW)
        except asyncio.CancelledError:
            raise TransportDown from None

    with pytest.raises(ChannelLayerUnavailable, match=r"send_timeout=0\.02"):
        await outbox.submit(1, fail)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


RARELY = ["answer", "cut", "told", "restore", "cancel"]
#: What may happen, and a number that says to which, or how many.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*["submit"] * 3, *["turn", "hear"] * 2, *RARELY]),
        st.integers(0, 7),
    ),
    max_size=80,
)


class Play:
    """An outbox over a stream, taken through steps."""

    def __init__(self) -> None:
        self.outbox, self.stream = Outbox(SLOW, 1000, 1_000_000), Stream()
        self.sends: list[asyncio.Task[int]] = []
        self.cancelled: set[int] = set()

    async def step(self, step: str, number: int) -> None:
        outbox, stream = self.outbox, self.stream
        if step == "submit":
            mine = len(self.sends)
            self.sends.append(asyncio.create_task(outbox.submit(1, lambda: stream.send(mine))))
            # So that the order of submission is known.
            await turns(1)
        elif step == "turn":
            await turns(number)
        elif step == "answer":
            stream.answer(number)
        elif step == "cut":
            stream.cut(number)
        elif step == "told":
            if not stream.is_up:
                outbox.shut()
        elif step == "hear":
            stream.tell(number)
        elif step == "restore":
            if not stream.is_up:
                outbox.shut()
                stream.is_up = True
                outbox.open()
        elif self.sends:
            chosen = number % len(self.sends)
            if not self.sends[chosen].done():
                self.sends[chosen].cancel()
                self.cancelled.add(chosen)

    async def end(self) -> list[Any]:
        """Let all come to its end; what the sends gave."""
        while not all(send.done() for send in self.sends):
            await self.step("hear", 0)
            await self.step("restore", 0)
            await turns(1)
            self.stream.answer(2)
        return await asyncio.gather(*self.sends, return_exceptions=True)


@given(STEPS)
def test_whatever_breaks_when_each_is_sent_and_their_order_holds(
    steps: list[tuple[str, int]],
) -> None:
    async def run() -> Play:
        play = Play()
        for step in steps:
            await play.step(*step)
        results = await play.end()
        for number, result in enumerate(results):
            if number not in play.cancelled:
                assert result == -number
        return play

    play = asyncio.run(run())
    # The broker drops what it has seen; of what is left nothing may come after a later one.
    seen = list(dict.fromkeys(play.stream.sent))
    assert seen == sorted(seen)
    assert set(range(len(play.sends))) - play.cancelled <= set(seen)
    assert len(play.outbox) == 0
    assert play.outbox.given_up == 0
