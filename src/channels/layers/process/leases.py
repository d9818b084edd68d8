"""Reading queues at least once: a message stays with the broker until it is finished.

A reader gets a message with its `Lease`, and ends that: `ack` when the work is done, `retry` when
it failed, `reject` when it never will succeed.  A lease that nobody ends runs out, and the broker
gives the message to another reader; so does it when the reader's process has died.  A message that
was tried `max_attempts` times goes to the dead-letter channel, and is in no reader's way any more.

A message may be handled twice: when its lease ran out under a slow reader, or when the word that it
was done got lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

from channels.exceptions import ChannelFull, ChannelLayerUnavailable, MessageTooLarge
from channels.kit.types import Message
from channels.layers.contract import Leased
from channels.layers.delivery import DEAD_LETTER, Delivery
from channels.layers.process.queues import Queues

logger = logging.getLogger("channels.layers")

#: Wait before a message that cannot be laid down is taken up again.
_PUT_OFF_SECONDS: Final = 60.0


class Lease:
    """A message in hand: it comes back unless it is finished.

    As an async context manager: `ack` at the end of the block, `retry` if it raised, `give_back` if
    it was cancelled, unless it was ended inside.

    Attributes:
        attempts: How often the message was taken, this time included.
    """

    def __init__(
        self, leases: Leases, leased: Leased, message: Message, delivery: Delivery
    ) -> None:
        self.channel = leased.queue
        self.attempts = leased.attempts
        self.delivery = delivery
        self._leases = leases
        self._queues = leases.queues
        self._leased = leased
        self._message = message
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """True once it was ended here; one that ran out does not know."""
        return self._is_over

    async def ack(self) -> bool:
        """The message is done.

        Returns:
            False if the lease had run out, so that another reader may have the message too; or if
            it was ended before.

        Raises:
            ChannelLayerUnavailable: If the backend was out of reach for `send_timeout`.
        """
        return await self._end("acknowledged", self._queues.acknowledge)

    async def retry(self, delay: float | None = None, reason: str = "") -> bool:
        """This attempt failed: try again after `delay` seconds, or after the pause that is due.

        After the last attempt the message goes to the dead-letter channel with `reason`.  Returns
        and raises as `ack`.
        """
        if self.attempts >= self.delivery.max_attempts:
            return await self.reject(reason or "every attempt failed")
        pause = self.delivery.pause_after(self.attempts) if delay is None else delay
        return await self._end("retried", partial(self._queues.release, delay=pause, counted=True))

    async def reject(self, reason: str) -> bool:
        """No attempt can succeed: to the dead-letter channel.  Returns and raises as `ack`."""

        async def bury(leased: Leased) -> bool:
            return await self._leases.bury(leased, self._message, self.delivery, reason)

        return await self._end("rejected", bury)

    async def give_back(self) -> bool:
        """This was no attempt: another reader shall have it now.  Returns and raises as `ack`."""
        return await self._end(
            "given_back", partial(self._queues.release, delay=0.0, counted=False)
        )

    async def extend(self, seconds: float | None = None) -> bool:
        """Let it run so long from now on, or for another `visibility_timeout`.

        Returns:
            False if it is over.
        """
        if self._is_over:
            return False
        return await self._queues.extend(
            self._leased, self.delivery.visibility_timeout if seconds is None else seconds
        )

    async def _end(self, how: str, end: Callable[[Leased], Awaitable[bool]]) -> bool:
        if self._is_over:
            return False
        self._is_over = True
        try:
            done = await end(self._leased)
        except BaseException:
            # The backend has not been told: it may be told again.
            self._is_over = False
            raise
        self._leases.counters[how if done else "leases_lost"] += 1
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.ack()
        elif isinstance(error, Exception):
            await self.retry(reason=reason_of(error))
        else:
            await self.give_back()


class Leases:
    """At-least-once delivery in this process; any thread and loop."""

    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self.counters = queues.counters

    async def receive(self, channel: str, delivery: Delivery) -> tuple[Message, Lease]:
        """The next message of a queue, on lease; what is void or used up is seen to on the way.

        Cancel safety: a cancelled call takes nothing.
        """
        await self.queues.link.start()
        while True:
            taken, event = await self.queues.take(channel)
            leased = taken.leased
            try:
                if taken.asked:
                    # It was to be acknowledged for a `receive` that was cancelled.
                    await self.queues.put_back(taken)
                    continue
                if leased.attempts > delivery.max_attempts:
                    reason = f"taken {leased.attempts - 1} times and never finished"
                    await self.bury(leased, event.message, delivery, reason)
                    continue
            except (ChannelFull, ChannelLayerUnavailable) as error:
                # It comes again when its lease has run out.
                logger.warning("A message of %s could not be put away: %s", channel, error)
                continue
            except asyncio.CancelledError:
                self.queues.keep(taken)
                raise
            self.counters["leased"] += 1
            return event.message, Lease(self, leased, event.message, delivery)

    async def bury(self, leased: Leased, message: Message, delivery: Delivery, reason: str) -> bool:
        """Lay a message down in its dead-letter channel; it is there before it is gone here."""
        fate, target = "was dropped", delivery.dead_letter
        # A dead letter that kills its reader too must not go round for ever.
        if target is not None and message.get("type") != DEAD_LETTER:
            letter = {
                "type": DEAD_LETTER,
                "channel": leased.queue,
                "message": message,
                "reason": reason,
                "attempts": leased.attempts,
            }
            try:
                await self.queues.push(target, letter, None)
                fate = f"went to {target}"
            except ChannelFull:
                fate = f"stays there, for there is no room for it in {target},"
            except MessageTooLarge:
                fate = "was dropped, too long for a dead letter,"
        logger.error(
            "A message of %s %s after %s attempts: %s", leased.queue, fate, leased.attempts, reason
        )
        if fate.startswith("stays"):
            # It goes through no handler meanwhile.
            self.counters["dead_letters_put_off"] += 1
            is_counted = leased.attempts <= 1
            return await self.queues.release(leased, _PUT_OFF_SECONDS, is_counted)
        self.counters["dead_letters" if fate.startswith("went") else "dropped_dead"] += 1
        return await self.queues.acknowledge(leased)


def reason_of(error: BaseException) -> str:
    """An error in one line, for a dead letter."""
    return f"{type(error).__name__}: {error}"[:500]
