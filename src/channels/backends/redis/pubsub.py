"""The cheap variant's share in one server: groups and nodes by publish and subscribe.

The command connection and the subscribed one live and die together: what was published while
either was away is lost, and told as a gap.  A subscription may be dead although its connection
lives, for instance on a server that a failover has left behind; so after silence the process
publishes to itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from channels.backends.redis.calls import batches
from channels.backends.redis.connection import RedisConnection, pack
from channels.backends.redis.held import HeldCalls
from channels.backends.redis.inbox import InboxReader
from channels.backends.redis.options import RedisOptions
from channels.backends.redis.shard import Shard, ShardOwner
from channels.backends.shell import Broken, run_until_one_fails
from channels.exceptions import NodeGone, TransportDown
from channels.layers.contract import TransportEvents
from channels.layers.envelope import Envelope
from channels.layers.names import ALL_NODES


class _Request:
    """A command for some channels, until the server has confirmed each."""

    __slots__ = ("confirmed", "left")

    def __init__(self, channels: int) -> None:
        self.left = channels
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Subscriber:
    """Subscribes and hands on.

    Args:
        on_frame: Takes what is published; not what is empty, which is a sign of life.
    """

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self._on_frame = on_frame
        self._connection: RedisConnection | None = None
        self._requests: deque[_Request] = deque()
        #: Set with everything that comes.
        self.heard = asyncio.Event()

    async def serve(self, connection: RedisConnection) -> None:
        """Hand on what comes over this connection, until it breaks; then close it."""
        self._connection, connection.on_reply = connection, self._take
        try:
            await connection.serve()
        finally:
            self._connection = None
            requests, self._requests = self._requests, deque()
            for request in requests:
                if not request.confirmed.done():
                    request.confirmed.set_exception(TransportDown("the subscription broke"))
            connection.close()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """From when it returns, what is published there arrives.

        Raises:
            TransportDown: If the connection is not there, or breaks.
        """
        await self._ask("SUBSCRIBE", channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """The reverse."""
        await self._ask("UNSUBSCRIBE", channels)

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    async def _ask(self, command: str, channels: Sequence[str]) -> None:
        connection = self._connection
        if connection is None:
            raise TransportDown("Redis is not connected")
        if not channels:
            return
        request = _Request(len(channels))
        self._requests.append(request)
        connection.write(pack((command, *channels)))
        await request.confirmed

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        self.heard.set()
        kind = bytes(reply[0])
        if kind == b"message":
            if reply[2]:
                self._on_frame(reply[2])
        elif kind in {b"subscribe", b"unsubscribe"} and self._requests:
            request = self._requests[0]
            request.left -= 1
            if not request.left:
                self._requests.popleft()
                if not request.confirmed.done():
                    request.confirmed.set_result(None)


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
        _, queues = await self._translated(asyncio.gather(published, found))
        return await self._members(group, queues) if queues else ()

    async def push_node(self, node: str, envelope: Envelope) -> None:
        channel = self.keys.node_channel(node)
        hearers = await self._do("PUBLISH", channel, envelope.encoded)
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
    """A share with subscriptions in place of an inbox."""

    calls: PubSubCalls
    waits_by = "p"

    def _make_calls(self, queue_life: Callable[[], float], options: RedisOptions) -> HeldCalls:
        return PubSubCalls(self.keys, self.line, options, queue_life)

    def _make_inbox(self, node: str) -> InboxReader | None:  # noqa: ARG002 - subscriptions instead
        return None

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
