"""The contract between a node and its transport: what the author of a backend must know.

A layer is one `Node` per process and a `Transport`.  The node has everything with meaning: names,
capacities, expiry, encoding, local delivery, groups, replay.  A transport moves envelopes between
nodes and does nothing else.  To write a backend, implement `Transport` and hand an instance to
`channels.layers.process.layer.NodeChannelLayer`; then run `channels.testing.layers` over it.

Addresses
    group   Every node that has joined gets each envelope once: **the sender's own node too**, and
            in one order for all nodes.  A sender's envelopes keep their order.
    node    The inbox of one process.  One order per sender.
    queue   A channel that no node owns (a worker's, or any name).  Each envelope goes to one
            process; the first sent is the first taken.

What the node gives
    * It calls everything on one event loop, the owner loop, the same from `start` to `stop`.  If
      that loop is closed under it, or the process forks, it calls `abandon`, later `start` again.
    * It calls `join` for a group when its first member comes and `leave` some seconds after the
      last one went, never both at a time for one group.  After `on_up(kept=False)` it joins again
      whatever it needs.
    * It calls `publish`, `push_node` and `push` in the order in which their effects should be seen,
      without waiting for the one before.  When one raises `TransportDown` it keeps the envelope,
      waits for `on_up`, and calls again in order, up to its `send_timeout`; the caller's call then
      ends in `ChannelLayerUnavailable`.
    * It drops an envelope that it gets twice by (sender, seq), within the last 4,096 of a sender.
      So one for a group or a node may arrive twice.  One in a queue may not: a queue has many
      readers, so there the broker must drop it (`dedupes`), or the guarantee is weaker.
    * It drops what is past its deadline, and malformed bytes, and counts both.
    * It never calls with a name that breaks the grammar, nor with an envelope over the size bound.

What the node expects
    * `start` returns without waiting for the broker: it begins to connect, and goes on trying with
      a growing pause and jitter until `stop`.  It calls `on_up` when connected, `on_down` when not.
    * An operation called while down raises `TransportDown` at once; one in flight when the
      connection breaks raises it too.  No other connection error may leave an operation.  The node
      then waits for the next `on_up`, so one must follow.
    * An operation takes its place in the order before its first await, so that calls made one after
      the other without awaiting are carried out in that order.  (An operation is an `async def`, or
      gives a future; then it takes its place before it returns, and may raise at once.)
    * A cancelled operation drops the caller's interest, never the connection.
    * A connection that is silently dead is found out within 15 s.
    * Whatever may have been lost is told by `on_gap`: the groups concerned, or None for all.
    * Events are called on the owner loop, never from inside an operation that the node has called
      (except by a transport with `is_direct`).  They do not raise and do not wait.
    * Every buffer has a bound, and what is dropped there is counted in `statistics`.

What a backend may add
    `DelayingTransport` (capability `delays`) and `LeasingTransport` (capability `leases`).  A node
    asks for neither of a transport that does not claim them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from channels.layers.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a transport can do; the conformance suite asks accordingly, and so do the docs."""

    #: Envelopes reach other processes.
    spans_processes: bool = True
    #: No operation ever waits and all may be called on any thread: the node needs no owner loop.
    is_direct: bool = False
    #: It delivers a group's envelopes only after `join`; otherwise all, always.
    joins: bool = True
    #: `push` refuses the message that is one over capacity, also with many senders.
    exact_capacity: bool = True
    #: A (sender, seq) that was pushed to a queue already is dropped by the broker.
    dedupes: bool = True
    #: Groups may have queues as members (`add_queue`).
    queue_members: bool = True
    #: Seconds for which envelopes wait for a node that is reconnecting; 0: they are lost, with
    #: `on_gap`.
    reconnect_window: float = 0.0
    #: Unread envelopes in queues outlive the broker's restart.
    durable: bool = False
    #: Seconds by which a deadline may be exceeded before the broker drops an envelope in a queue.
    expiry_slack: float = 0.0
    #: It is a `DelayingTransport`.
    delays: bool = False
    #: It is a `LeasingTransport`.
    leases: bool = False


class TransportEvents(Protocol):
    """What a transport tells its node; all on the owner loop."""

    def on_envelope(self, envelope: Envelope) -> None:
        """One came for this node or for a group that it has joined."""

    def on_frame(self, data: bytes) -> None:
        """The same, not yet decoded; bytes that are no envelope are counted and dropped."""

    def on_up(self, kept: bool) -> None:
        """Connected.

        Args:
            kept: The broker still has this node's memberships and whatever waited for it.  If not,
                the node joins its groups again and announces a gap.
        """

    def on_down(self, error: BaseException | None) -> None:
        """Not connected any more; logged once until `on_up`.

        Args:
            error: What happened; None: the other end has ended in order, and another takes its
                place, which is no reason for a warning unless an error follows.
        """

    def on_gap(self, groups: Sequence[str] | None) -> None:
        """Envelopes for these groups (None: for all, and for the node) may have been lost."""

    def on_over_capacity(self, group: str, full: int, members: int) -> None:
        """So many of a group's member queues were full and passed over."""

    def capacity_of(self, channel: str) -> int:
        """How many unread messages the layer's settings allow this channel."""


class Transport(Protocol):
    """Moves envelopes for one node.  `envelope.encoded` is what to store or write."""

    @property
    def capabilities(self) -> Capabilities:
        """Constant for the life of the transport."""

    @property
    def clock_offset(self) -> float:
        """Seconds to add to this machine's monotonic clock for the broker's, which deadlines use.

        The wall clock may step by hours; what is measured against it is wrong from then on.
        """

    async def start(self, node: str, events: TransportEvents) -> None:
        """Begin to connect, on the running loop, as the node with this name.

        `node` is one word of 17 lower-case letters and digits, unique to this process.

        Raises:
            InvalidChannelLayerError: If the settings can never work.  A broker that does not answer
                is no error here.
        """

    async def stop(self) -> None:
        """Send what is written, leave everything, close; ends within a second."""

    def abandon(self) -> None:
        """Let go at once, without the loop: it is closed, or this is a forked child.

        Closes descriptors without a word to the broker (a child shares them with its parent), and
        leaves nothing that warns when it is collected.  `start` may follow.
        """

    async def flush(self) -> None:
        """Forget all queues and groups under this layer's prefix, also of other nodes."""

    async def join(self, groups: Sequence[str]) -> None:
        """From the moment it returns, what is published to these groups arrives.  Idempotent."""

    async def leave(self, groups: Sequence[str]) -> None:
        """The reverse; unknown groups are fine."""

    def publish(self, group: str, envelope: Envelope) -> Awaitable[None]:
        """Give it to each node that has joined and to each queue that is a member.

        Full queues are passed over and told by `on_over_capacity`.  Returning means that the
        broker has it.
        """

    def push_node(self, node: str, envelope: Envelope) -> Awaitable[None]:
        """Give it to one node's inbox.

        Raises:
            NodeGone: If the broker knows that there is no such node.
            ChannelFull: If its inbox holds its bound.
        """

    def push(self, queue: str, envelope: Envelope, capacity: int) -> Awaitable[None]:
        """Append it to a queue.

        Raises:
            ChannelFull: If the queue holds `capacity` envelopes that are not past their deadline.
        """

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        """Make a queue a member of a group until `expires` (broker's clock); again: refresh."""

    async def discard_queue(self, group: str, queue: str) -> None:
        """Take it out; nothing happens if it is no member."""

    def statistics(self) -> Mapping[str, int]:
        """Counters since `start`, of what only the transport knows."""


class DelayingTransport(Transport, Protocol):
    """A transport that can hold an envelope for a queue until its time has come."""

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """Append it to a queue at `due`, in seconds by the broker's clock.

        Not before.  Within a second of it while the process that sent it is connected, within five
        while any of the layer is.
        It enters the queue even if that is at its capacity by then.  It survives what envelopes in
        queues survive.

        Raises:
            ChannelFull: If `bound` envelopes are held already, for all queues together.
        """


@dataclass(frozen=True, slots=True)
class Leased:
    """One that was taken from a queue and is not gone from the broker yet."""

    queue: str
    data: Envelope | bytes
    #: Names this lease and no other, at most 64 octets.
    token: bytes
    #: How often it was leased, this time included.
    attempts: int


class LeasingTransport(Transport, Protocol):
    """A transport with queues; they are read by lease.

    An envelope on lease is in nobody else's reach.  When the lease is over, by `release`, by its
    time, or because the broker knows that its process is gone, the envelope is at the head of its
    queue again, whatever the capacity, and the number of its attempts is kept.
    """

    def demand_leased(
        self, queue: str, count: int, seconds: float, taker: Callable[[Leased], None]
    ) -> None:
        """So many readers wait for this queue now; 0 ends it.  The latest call holds.

        The transport leases up to `count` envelopes for `seconds`, gives each to `taker`, and
        counts the demand down with each one by itself; one too many does no harm.  While down it
        remembers the demand.  Returns at once.

        `taker` is called on the owner loop (by a direct transport on any thread); it does not raise
        and does not wait.
        """

    async def acknowledge(self, queue: str, token: bytes) -> bool:
        """Forget the envelope for good; False if the lease was over.

        Called again after `TransportDown`, or after its caller was cancelled: False then too.
        """

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:
        """End a lease, so that the envelope can be taken again after `delay` seconds.

        Args:
            counted: Whether this was an attempt.

        Returns:
            False if the lease was over.
        """

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:
        """Let a lease run for so long from now on; False if it was over."""
