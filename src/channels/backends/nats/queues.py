"""Channels that no process owns, as JetStream has them: one stream for each kind of queue.

A stream counts its messages by subject, so a subject has the channel's capacity as its bound.  What
must enter whatever the capacity has a subject of its own under the channel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from channels.backends.nats.jetstream import JetStream, nanoseconds
from channels.backends.nats.names import Names, QueuePlan, encode


class QueueStreams:
    """The queues of a layer.

    Args:
        plan_of: How a channel is kept.
        queue_life: Seconds after which a consumer that nobody uses is forgotten.
    """

    def __init__(
        self, names: Names, plan_of: Callable[[str], QueuePlan], queue_life: float
    ) -> None:
        self.plan_of = plan_of
        self._names = names
        self._queue_life = queue_life

    def _config(self, plan: QueuePlan) -> dict[str, Any]:
        return {
            "name": self._names.stream(plan),
            "subjects": [self._names.stream_subjects(plan)],
            "retention": "workqueue",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": plan.capacity,
            "max_age": 0 if plan.life is None else nanoseconds(plan.life),
        }

    async def push(
        self, stream: JetStream, channel: str, data: bytes, identity: str, word: str = "0"
    ) -> None:
        """Append to a queue, once for one identity.

        Args:
            word: Another than "0": whatever the capacity.

        Raises:
            ChannelFull: If it is full.
        """
        plan = self.plan_of(channel)
        await stream.store(
            self._config(plan),
            self._names.queue(plan, channel, word),
            data,
            {"Nats-Msg-Id": identity},
            f"{channel} holds its capacity of {plan.capacity} unread messages.",
        )

    async def consumer(self, stream: JetStream, channel: str) -> str:
        """See to it that a queue can be read; returns the subject to ask for more."""
        plan = self.plan_of(channel)
        await stream.have_stream(self._config(plan))
        return await stream.have_consumer(
            self._names.stream(plan),
            encode(channel),
            {
                "ack_wait": nanoseconds(plan.ack_wait),
                "filter_subject": self._names.queue(plan, channel, "*"),
                "inactive_threshold": nanoseconds(self._queue_life),
            },
        )

    def forget(self, stream: JetStream, channel: str) -> None:
        """Its consumer is gone."""
        stream.forget(self._names.stream(self.plan_of(channel)), encode(channel))
