"""The contract between a process's end of a layer (a node) and its backend.

The node does everything with meaning: names, capacities, expiry, encoding, local delivery, replay,
dead letters.  A backend moves envelopes.  To write one, implement `Bus` and `WorkQueue`, hand it to
`channels.layers.process.layer.NodeChannelLayer`, and run `channels.testing.layers` over it.

Addresses
    group   Every node that has joined gets each envelope once, in the same order: **the sender's
            node too**.  A sender's envelopes keep their order.
    node    The inbox of one process.  One order per sender.
    queue   A channel that no process owns.  Each envelope goes to one process, the oldest first.

What the node does
    * It calls everything on one event loop, the same from `start` to `stop`.  If that loop is
      closed, or the process forks, it calls `abandon`, and later `start` again.
    * It joins a group when its first member comes and leaves some seconds after the last one went;
      joins and leaves never overlap.  After `on_up(kept=False)` it joins all groups again.
    * It calls `publish`, `push_node` and `push` in the order in which they should take effect,
      without waiting for the one before.  After `TransportDown` it waits for `on_up` and calls
      again, in order, for up to `send_timeout`.
    * It drops an envelope for a group or a node that arrives twice, by (sender, seq).  One that was
      pushed to a queue twice must be dropped by the broker, or both are delivered.
    * It drops what is past its deadline and what is malformed.  Names and sizes are valid.

What the node expects
    * `start` does not wait for the broker: it begins to connect and retries, with a growing pause
      and jitter, until `stop`.  `on_up` when connected, `on_down` when not.
    * An operation raises `TransportDown` at once while down, and when the connection breaks under
      it; no other connection error.  An `on_up` must follow.
    * An operation takes its place in the order before its first await.
    * A cancelled operation leaves the connection intact.
    * A connection that is silently dead is noticed within 15 s.
    * Whatever may have been lost is reported by `on_gap`.
    * Events are called on the owner loop, never from inside an operation (except by a direct
      backend); they neither raise nor wait.  Every buffer is bounded and counts what it drops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from channels.layers.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do beyond `Bus` and `WorkQueue`."""

    #: It is in this process: no operation waits, any thread may call, all groups' envelopes come
    #: without `join`.
    is_direct: bool = False
    #: It is a `DelayedQueue`.
    delays: bool = False
    #: It has `QueueMembers`.
    queue_members: bool = False


class TransportEvents(Protocol):
    """What a backend reports to its node; on the owner loop."""

    def on_frame(self, data: bytes | Envelope) -> None:
        """An envelope arrived for this node or a group that it has joined; or malformed bytes."""

    def on_up(self, kept: bool) -> None:
        """Connected; `kept`: the broker still has the memberships and what arrived meanwhile."""

    def on_down(self, error: BaseException | None) -> None:
        """Disconnected; an error of None: the other end exited cleanly, a successor takes over."""

    def on_gap(self, groups: Sequence[str] | None) -> None:
        """Envelopes for these groups may have been lost; None: for all, and for the node."""

    def on_over_capacity(self, group: str, full: int, members: int) -> None:
        """`full` of a group's `members` queues were full and skipped."""

    def capacity_of(self, channel: str) -> int:
        """How many unread messages the layer's settings allow this channel."""


class Bus(Protocol):
    """Groups and inboxes.  `envelope.encoded` is what goes over the wire."""

    @property
    def capabilities(self) -> Capabilities:
        """Constant."""

    @property
    def clock_offset(self) -> float:
        """Seconds from this machine's monotonic clock to the broker's, which deadlines use."""

    async def start(self, node: str, events: TransportEvents) -> None:
        """Begin to connect, on the running loop, as `node`: 17 lower-case letters and digits.

        Raises InvalidChannelLayerError if the settings can never work.
        """

    async def stop(self) -> None:
        """Send what is written, leave everything, close; within a second."""

    def abandon(self) -> None:
        """Close descriptors at once, without the loop and without a word to the broker.

        In a forked child the parent uses the same connections.  `start` may follow.
        """

    async def flush(self) -> None:
        """Delete all queues and groups under this layer's prefix, also of other nodes."""

    async def join(self, groups: Sequence[str]) -> None:
        """Subscribe: what is published after this returns arrives.  Idempotent."""

    async def leave(self, groups: Sequence[str]) -> None:
        """Unsubscribe; unknown groups are fine."""

    def publish(self, group: str, envelope: Envelope) -> Awaitable[None]:
        """Deliver to each node that has joined and each queue that is a member.

        Returns when the broker has it.  Full queues are skipped: `on_over_capacity`.
        """

    def push_node(self, node: str, envelope: Envelope) -> Awaitable[None]:
        """Deliver to one node's inbox.

        Raises NodeGone if the broker knows no such node, ChannelFull if its inbox is at its bound.
        """

    def statistics(self) -> Mapping[str, int]:
        """Counters since `start` of what only the backend knows."""


class Leased(NamedTuple):
    """An envelope on lease; the broker still has it."""

    queue: str
    data: Envelope | bytes
    #: Names this lease and no other, at most 64 octets.
    token: bytes
    #: How often the envelope was leased, this time included.
    attempts: int


class Backlog(NamedTuple):
    """What waits in a queue, without what is on lease."""

    #: Envelopes; whether those past their deadline count is the broker's.
    waiting: int
    #: Deadline of the oldest, as in its envelope (0: none); None: the broker cannot say.
    deadline: int | None = None


#: Is given an envelope on lease, and neither raises nor waits.
Taker = Callable[[Leased], None]


class WorkQueue(Protocol):
    """Queues, which are read by lease.

    While a lease runs no other reader gets the envelope.  When it ends, by `release`, by its time,
    or because the broker noticed that the process is gone, the envelope is at the head of its queue
    again, whatever the capacity.
    """

    def push(self, queue: str, envelope: Envelope, capacity: int) -> Awaitable[None]:
        """Append an envelope.

        Raises ChannelFull if the queue holds `capacity` envelopes within their deadline.
        """

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """Lease up to `count` envelopes from now on, for `seconds` each; 0: no more.

        Each is given to `taker` on the owner loop (by a direct backend on any thread) and counts
        the demand down.  The latest call holds, also over a reconnect.  Returns at once.
        """

    async def acknowledge(self, queue: str, token: bytes) -> bool:
        """Delete an envelope on lease; False if the broker knows no such lease (any more)."""

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:
        """End a lease; the envelope can be taken again after `delay` seconds.  False as above.

        Unless `counted` this was no attempt.
        """

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:
        """Let a lease run for `seconds` from now.  False as above."""

    async def backlog(self, queue: str) -> Backlog:
        """What waits in a queue; one that the broker does not know is empty."""


class DelayedQueue(Protocol):
    """Queues that can hold an envelope back; capability `delays`."""

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """Append an envelope at `due`, by the broker's clock, even to a queue that is full then.

        Not earlier; at most a second later while the sender is connected, five while any node is.
        Raises ChannelFull if `bound` envelopes are held back already, for all queues together.
        """


class QueueMembers(Protocol):
    """Queues as members of groups; capability `queue_members`."""

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        """Make a queue a member until `expires`, by the broker's clock; again: refresh."""

    async def discard_queue(self, group: str, queue: str) -> None:
        """Remove a member; nothing happens if it is none."""


class Transport(Bus, WorkQueue, Protocol):
    """Both: what a backend hands to its layer."""
