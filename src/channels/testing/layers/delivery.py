"""Delayed sends, and delivery at least once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.testing.layers.base import (
    ConformanceBase,
    MakeLayer,
    nothing_comes,
    receive_all,
    soon,
)

#: Long enough for a slow machine, short enough for a test.
SHORT = 0.5


class DelayCases(ConformanceBase):
    """`send(..., delay=seconds)`."""

    async def test_a_delayed_message_comes_when_it_is_due(self, make_layer: MakeLayer) -> None:
        self.need("delays")
        first, second = await self.make_two(make_layer)
        # Connected already, they do not find the message by their first look.
        for layer in (first, second):
            await layer.new_channel()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(
            first.send("worker", {"type": "late"}, delay=SHORT),
            first.send("worker", {"type": "now"}),
        )
        assert await receive_all(second, "worker", 2) == [{"type": "now"}, {"type": "late"}]
        # Deadlines are in milliseconds and the broker's clock is another.
        assert loop.time() - began >= SHORT - 0.05
        # Within a second, says the contract; a busy machine gets more.
        assert loop.time() - began < SHORT + 3

    async def test_delayed_messages_come_in_the_order_of_their_times(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("delays")
        first, second = await self.make_two(make_layer)
        # What the first one needs takes its time.
        await first.send("other", {"type": "x"}, delay=0.01)
        loop = asyncio.get_running_loop()
        #: Number -> when it is due at the earliest and at the latest: the delay counts from a
        #: moment within the call, which a busy machine makes long.
        due: dict[int, tuple[float, float]] = {}

        async def send(number: int) -> None:
            delay, began = SHORT + number / 5, loop.time()
            await first.send("worker", {"type": "x", "number": number}, delay=delay)
            due[number] = began + delay, loop.time() + delay

        await asyncio.gather(*(send(number) for number in (3, 1, 2, 0)))
        got = [message["number"] for message in await receive_all(second, "worker", 4)]
        assert sorted(got) == [0, 1, 2, 3]
        for before, after in itertools.combinations(got, 2):
            assert due[before][0] <= due[after][1], f"{before} before {after}: {got}"

    async def test_a_channel_of_a_process_takes_delayed_messages(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("delays")
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        await first.new_channel()
        for sender in (first, second):
            # Together: a slow backend might take longer for the first than its delay.
            await asyncio.gather(
                sender.send(channel, {"type": "late"}, delay=SHORT),
                sender.send(channel, {"type": "now"}),
            )
            assert await receive_all(second, channel, 2) == [{"type": "now"}, {"type": "late"}]

    async def test_expiry_counts_from_when_it_is_due(self, make_layer: MakeLayer) -> None:
        self.need("delays", "expiry")
        layer = await make_layer(expiry=1.0)
        own = await layer.new_channel()
        for channel in ("worker", own):
            await layer.send(channel, {"type": "x"}, delay=1.4)
        await asyncio.sleep(1.2)
        for channel in ("worker", own):
            assert await soon(layer.receive(channel)) == {"type": "x"}

    async def test_what_was_accepted_enters_a_full_channel(self, make_layer: MakeLayer) -> None:
        self.need("delays", "exact_capacity")
        layer = await make_layer(capacity=1)
        # Delays count from the call: a first one would have the connection's time in it.
        await layer.send("other", {"type": "x"}, delay=0.01)
        await asyncio.gather(
            layer.send("worker", {"type": "late"}, delay=SHORT),
            layer.send("worker", {"type": "now"}),
        )
        await asyncio.sleep(SHORT + 0.1)
        assert await receive_all(layer, "worker", 2) == [{"type": "now"}, {"type": "late"}]

    async def test_no_more_than_max_delayed_wait(self, make_layer: MakeLayer) -> None:
        self.need("delays")
        layer = await make_layer(max_delayed=2)
        own = await layer.new_channel()
        for channel in ("worker", own):
            for _ in range(2):
                await layer.send(channel, {"type": "x"}, delay=60)
            with pytest.raises(ChannelFull, match="max_delayed"):
                await layer.send(channel, {"type": "x"}, delay=60)
            await layer.send(channel, {"type": "now"})
            assert await soon(layer.receive(channel)) == {"type": "now"}

    @pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e9, "5", True])
    async def test_a_delay_that_is_none(self, make_layer: MakeLayer, delay: Any) -> None:
        self.need("delays")
        layer = await make_layer()
        with pytest.raises(ValueError, match="expected seconds from 0 to"):
            await layer.send("worker", {"type": "x"}, delay=delay)

    async def test_flush_forgets_what_is_delayed(self, make_layer: MakeLayer) -> None:
        self.need("delays", "flush")
        first, second = await self.make_two(make_layer)
        # Long enough for a slow machine to flush before it is due.
        await first.send("worker", {"type": "x"}, delay=1.0)
        await second.flush()
        await nothing_comes(first, "worker", 1.5)


class LeaseCases(ConformanceBase):
    """Channels whose `delivery` is "at-least-once"."""

    @asynccontextmanager
    async def processes(
        self, make_layer: MakeLayer, expiry: float = 60.0, **delivery: Any
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Two processes that deliver "worker" at least once."""
        self.need("leases")
        delivery = {"retry_delay": 0.05, "dead_letter": "dead", **delivery}
        yield await self.make_two(make_layer, delivery={"worker*": delivery}, expiry=expiry)

    async def test_what_is_finished_does_not_come_again(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer, visibility_timeout=SHORT) as (first, second):
            sent = {"type": "x", "list": [1, 2], "bytes": b"x"}
            await first.send("worker", sent)
            message, lease = await soon(second.receive_leased("worker"))
            assert message == sent
            assert lease.attempts == 1
            assert await lease.ack()
            assert lease.is_over
            await nothing_comes(first, "worker", 2 * SHORT)

    async def test_on_lease_it_is_nobody_elses_until_the_lease_runs_out(
        self, make_layer: MakeLayer
    ) -> None:
        async with self.processes(make_layer, visibility_timeout=SHORT) as (first, second):
            await first.send("worker", {"type": "x"})
            loop = asyncio.get_running_loop()
            began = loop.time()
            _, lost = await soon(second.receive_leased("worker"))
            message, lease = await soon(first.receive_leased("worker"))
            assert loop.time() - began >= SHORT - 0.05
            assert message == {"type": "x"}
            assert lease.attempts == 2
            assert not await lost.ack(), "its lease had run out"
            assert await lease.ack()
            assert not await lease.ack(), "once is enough"

    async def test_an_extended_lease_runs_longer(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer, visibility_timeout=SHORT) as (first, second):
            await first.send("worker", {"type": "x"})
            _, lease = await soon(second.receive_leased("worker"))
            assert await lease.extend(60)
            await nothing_comes(first, "worker", 2 * SHORT)
            assert await lease.ack()
            assert not await lease.extend()

    async def test_what_failed_is_tried_again_before_what_came_later(
        self, make_layer: MakeLayer
    ) -> None:
        async with self.processes(make_layer) as (first, second):
            for number in range(2):
                await first.send("worker", {"type": "x", "number": number})
            for attempt in (1, 2, 3):
                message, lease = await soon(second.receive_leased("worker"))
                assert (message["number"], lease.attempts) == (0, attempt)
                assert await lease.retry(delay=0)
            _, lease = await soon(first.receive_leased("worker"))
            assert lease.attempts == 4

    async def test_a_retry_waits_for_its_delay(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer) as (first, second):
            for number in range(2):
                await first.send("worker", {"type": "x", "number": number})
            _, lease = await soon(second.receive_leased("worker"))
            assert await lease.retry(delay=SHORT)
            numbers = []
            for _ in range(2):
                message, lease = await soon(second.receive_leased("worker"))
                numbers.append(message["number"])
                await lease.ack()
            assert numbers == [1, 0]

    async def test_what_is_given_back_was_no_attempt(self, make_layer: MakeLayer) -> None:
        self.need("leases", "exact_attempts")
        async with self.processes(make_layer, max_attempts=1) as (first, second):
            await first.send("worker", {"type": "x"})
            for layer in (second, first, second):
                _, lease = await soon(layer.receive_leased("worker"))
                assert lease.attempts == 1
                assert await lease.give_back()

    async def test_poison_goes_to_the_dead_letters(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer, max_attempts=2) as (first, second):
            await first.send("worker", {"type": "x", "number": 1})
            for _ in range(2):
                _, lease = await soon(second.receive_leased("worker"))
                await lease.retry(reason="LookupError: bad")
            assert await soon(first.receive("dead")) == {
                "type": "dead.letter",
                "channel": "worker",
                "message": {"type": "x", "number": 1},
                "reason": "LookupError: bad",
                "attempts": 2,
            }
            await nothing_comes(first, "worker", 0.2)

    async def test_what_kills_its_readers_goes_to_the_dead_letters(
        self, make_layer: MakeLayer
    ) -> None:
        async with self.processes(make_layer, max_attempts=2, visibility_timeout=0.2) as (
            first,
            second,
        ):
            await first.send("worker", {"type": "poison"})
            for _ in range(2):
                message, _ = await soon(second.receive_leased("worker"))
                assert message == {"type": "poison"}
            await first.send("worker", {"type": "good"})
            message, lease = await soon(second.receive_leased("worker"))
            assert message == {"type": "good"}
            await lease.ack()
            reader = asyncio.create_task(second.receive_leased("worker"))
            letter = await soon(first.receive("dead"))
            assert (letter["message"], letter["attempts"]) == ({"type": "poison"}, 3)
            assert "never finished" in letter["reason"]
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def test_a_rejected_message_goes_to_the_dead_letters(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer) as (first, second):
            await first.send("worker", {"type": "x"})
            _, lease = await soon(second.receive_leased("worker"))
            assert await lease.reject("no such thing")
            letter = await soon(first.receive("dead"))
            assert (letter["reason"], letter["attempts"]) == ("no such thing", 1)

    async def test_the_block_ends_the_lease(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer, max_attempts=2) as (first, second):
            await first.send("worker", {"type": "x"})
            _, lease = await soon(second.receive_leased("worker"))
            with pytest.raises(LookupError):
                async with lease:
                    raise LookupError("bad")
            _, lease = await soon(second.receive_leased("worker"))
            assert lease.attempts == 2
            async with lease:
                pass
            assert lease.is_over
            await nothing_comes(first, "worker", 0.2)

    async def test_it_does_not_expire(self, make_layer: MakeLayer) -> None:
        self.need("expiry")
        async with self.processes(make_layer, expiry=SHORT) as (first, second):
            await first.send("worker", {"type": "x"})
            await asyncio.sleep(2 * SHORT + self.features.expiry_slack)
            message, lease = await soon(second.receive_leased("worker"))
            assert message == {"type": "x"}
            await lease.ack()

    async def test_each_of_many_messages_is_finished_once(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer) as (first, second):
            done: list[int] = []
            all_done = asyncio.Event()

            async def work(layer: Any) -> None:
                while True:
                    message, lease = await layer.receive_leased("worker")
                    async with lease:
                        done.append(message["number"])
                    if len(done) == 100:
                        all_done.set()

            workers = [asyncio.create_task(work(layer)) for layer in (first, second) * 2]
            for number in range(100):
                await first.send("worker", {"type": "x", "number": number})
            await soon(all_done.wait())
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            assert sorted(done) == list(range(100))

    async def test_a_cancelled_reader_takes_nothing(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer) as (first, second):
            count = min(100, self.cancelled_readers)
            chance, got = random.Random(3), list[int]()

            async def read() -> None:
                message, lease = await second.receive_leased("worker")
                got.append(message["number"])
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(lease.ack())

            for number in range(count):
                reader = asyncio.create_task(read())
                sending = first.send("worker", {"type": "x", "number": number})
                sender = asyncio.create_task(sending)
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                reader.cancel()
                await sender
                with contextlib.suppress(asyncio.CancelledError):
                    await reader
            while len(got) < count:
                await soon(read())
            assert sorted(got) == list(range(count)), "none lost, none doubled, none counted up"

    async def test_capacity_holds_for_senders(self, make_layer: MakeLayer) -> None:
        self.need("leases", "exact_capacity")
        layer = await make_layer(capacity=1, delivery={"worker": "at-least-once"})
        await layer.send("worker", {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send("worker", {"type": "x"})

    async def test_other_channels_have_no_leases(self, make_layer: MakeLayer) -> None:
        async with self.processes(make_layer) as (first, _):
            for channel in ("other", await first.new_channel("worker")):
                assert first.delivery_of(channel) is None
                with pytest.raises(InvalidChannelLayerError, match="delivered at most once"):
                    await first.receive_leased(channel)
