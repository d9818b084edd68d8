"""The cheap variant's share in one server: groups and nodes by publish and subscribe.

The command connection and the subscribed one live and die together: what was published while
either was away is lost, and told as a gap.  A subscription may be dead although its connection
lives, for instance on a server that a failover has left behind; so after silence the process
publishes to itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from channels.backends.redis.calls import batches
from channels.backends.redis.held import HeldCalls
from channels.backends.redis.options import RedisOptions
from channels.backends.redis.shard import Shard, ShardOwner
from channels.backends.redis.subscriber import Subscriber
from channels.backends.shell import Broken, run_until_one_fails
from channels.exceptions import NodeGone
from channels.layers.contract import TransportEvents
from channels.layers.envelope import Envelope
from channels.layers.names import ALL_NODES


class PubSubCalls(HeldCalls):
    """The operations, with subscriptions in place of inboxes."""

    subscriber: Subscriber

    async def join(self, groups: Sequence[str]) -> None:
        for batch in batches(groups):
            await self.subscriber.subscribe([self.keys.group_channel(group) for group in batch])
            self.joined.update(dict.fromkeys(batch))

    async def leave(self, groups: Sequence[str]) -> None:
        for batch in batches(groups):
            await self.subscriber.unsubscribe([self.keys.group_channel(group) for group in batch])
            for group in batch:
                self.joined.pop(group, None)

    async def count_nodes(self) -> int:
        return await self._count("PUBSUB", "NUMSUB", self.keys.group_channel(ALL_NODES))

    async def publish(
        self,
        group: str,
        envelope: Envelope,
        deferring: bool,  # noqa: ARG002 - it always does
    ) -> Sequence[tuple[str, int]]:
        """As `Calls.publish`."""
        keys = self.keys
        published = self.line.begin("PUBLISH", keys.group_channel(group), envelope.encoded)
        found = self.line.begin("HGETALL", keys.group_queues(group))
        _, queues = await self._calling(asyncio.gather(published, found))
        return await self._members(group, queues) if queues else ()

    async def push_node(self, node: str, envelope: Envelope) -> None:
        channel = self.keys.node_channel(node)
        hearers = await self._calling(self.line.call("PUBLISH", channel, envelope.encoded))
        # A node of a cluster counts its own subscribers only.
        if not hearers and self.keys.tag is None:
            raise NodeGone(node)

    async def _members(self, group: str, found: Sequence[bytes]) -> Sequence[tuple[str, int]]:
        """The queues of a group with their capacities, without those that have expired."""
        pairs = zip(found[::2], found[1::2], strict=True)
        now = (time.monotonic() + self.clock_offset) * 1000
        members = []
        for name, value in pairs:
            expires, capacity = map(int, value.split(b":"))
            if expires > now:
                members.append((name.decode(), capacity))
            else:
                await self.discard_queue(group, name.decode())
        return members


class PubSubShard(Shard):
    """A share without an inbox."""

    calls: PubSubCalls

    def _make_calls(self, queue_life: Callable[[], float], options: RedisOptions) -> HeldCalls:
        return PubSubCalls(self.keys, self.line, options, queue_life)

    def prepare(self, node: str, owner: ShardOwner, events: TransportEvents) -> None:
        super().prepare(node, owner, events)
        self.calls.subscriber = Subscriber(self._on_frame)

    def abandon(self) -> None:
        super().abandon()
        self.calls.subscriber.abandon()

    async def _greet(self) -> None:
        connection = await self._open_connection()
        await run_until_one_fails(
            self.calls.subscriber.serve(connection), self._greet_subscribed(), self._probe()
        )

    async def _greet_subscribed(self) -> None:
        await self.calls.subscriber.subscribe([self.keys.node_channel(self.calls.node)])
        await self._open()
        self._be_up(kept=False)
        await self._settle()
        await self._renew_for_ever()

    async def _probe(self) -> None:
        """Find out a subscription that is dead."""
        heard = self.calls.subscriber.heard
        while True:
            heard.clear()
            await asyncio.sleep(self._options.lease / 3)
            if heard.is_set():
                continue
            await self.line.call_first("PUBLISH", self.keys.node_channel(self.calls.node), b"")
            try:
                async with asyncio.timeout(self._options.answer_timeout):
                    await heard.wait()
            except TimeoutError:
                raise Broken("nothing comes over the subscription") from None
