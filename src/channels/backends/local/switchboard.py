"""What the hub does with a frame.  No socket is touched here, and no clock but the engine's.

Queues and their groups are the engine's, the same that the in-memory layer runs on.  A group's
messages for nodes go out as they came in, to whoever has joined.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from math import inf, isfinite
from typing import Any, Final

from channels.backends.local import frames
from channels.backends.local.frames import FrameError, Span, frame
from channels.backends.local.options import HubOptions
from channels.backends.local.peer import HubPeer
from channels.backends.memory.engine import EngineBounds, MemoryEngine
from channels.backends.memory.holding import Holder
from channels.exceptions import ChannelFull, MalformedEnvelope
from channels.kit.clock import Clock
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.process.window import SeenWindow

#: What a membership takes beside the group's name.
MEMBERSHIP_OCTETS: Final = 200

Handler = Callable[[HubPeer, bytes, bytes], None]


class Switchboard:
    """Groups, nodes and queues of one hub.

    Args:
        capacity_of: What the layer's settings allow a queue that is a member of a group.
        on_ready: A peer has said all that it has joined and reads.

    Attributes:
        dirty: Peers that something is to be written to.
    """

    def __init__(
        self,
        options: HubOptions,
        clock: Clock,
        capacity_of: Callable[[str], int],
        on_ready: Callable[[HubPeer], None] = lambda _: None,
    ) -> None:
        self.options = options
        self.epoch = os.urandom(8)
        self.engine = MemoryEngine(
            clock,
            bounds=EngineBounds(
                octets=options.message_memory,
                queues=options.max_queues,
                memberships=options.group_memory // MEMBERSHIP_OCTETS,
            ),
        )
        self.holder = Holder(self.engine, clock)
        self.seen = SeenWindow()
        self.groups: dict[bytes, dict[HubPeer, None]] = {}
        self.nodes: dict[bytes, HubPeer] = {}
        self.dirty: dict[HubPeer, None] = {}
        self.counters: Counter[str] = Counter()
        self._capacity_of = capacity_of
        self._on_ready = on_ready
        self._group_octets = 0
        self._handlers: dict[int, Handler] = {
            frames.READY: self._ready,
            frames.JOIN: self._join,
            frames.LEAVE: self._leave,
            frames.PUSH: self._push,
            frames.ADD_QUEUE: self._add_queue,
            frames.DISCARD_QUEUE: self._discard_queue,
            frames.FLUSH: self._flush,
            frames.PING: self._ping,
            frames.PUSH_LATER: self._push_later,
            frames.LEASE: self._lease,
            frames.ACKNOWLEDGE: self._acknowledge,
            frames.RELEASE: self._release,
            frames.EXTEND: self._extend,
            frames.UNWANTED: self._unwanted,
        }

    def take(self, peer: HubPeer, data: bytes, spans: list[Span]) -> None:
        """Carry out what a peer has sent.

        Raises:
            ValueError, struct.error: If it is no client of ours; the peer is to be dropped.
        """
        self.dirty[peer] = None
        head = frames.HEAD.size
        for kind, start, name_end, end in spans:
            name = data[start + head : name_end]
            if not peer.node:
                if kind != frames.HELLO:
                    raise FrameError(f"Expected HELLO first, found kind {kind}.")
                self._hello(peer, name, data[name_end:end])
            elif kind == frames.GROUP:
                # The two that are passed on whole, and most of the traffic.
                self._group(peer, name, data[start:end])
            elif kind == frames.NODE:
                self._node(peer, name, data[start:end])
            elif (handler := self._handlers.get(kind)) is not None:
                handler(peer, name, data[name_end:end])
            else:
                raise FrameError(f"Kind {kind} is none that a client sends.")

    def forget(self, peer: HubPeer) -> None:
        """It has gone; what was not written to it goes back to its queues."""
        self.dirty.pop(peer, None)
        for name in list(peer.groups):
            self._leave_one(peer, name)
        if self.nodes.get(peer.node) is peer:
            del self.nodes[peer.node]
        self.return_unwritten(peer)
        successor = self.nodes.get(peer.node)
        if successor is None:
            self.holder.forget_reader(peer)
        else:
            # The same process on another connection.
            self.holder.forget_reader(peer, successor)

    def return_unwritten(self, peer: HubPeer) -> None:
        """Put back at the head of its queues what was leased to a peer and not yet written."""
        while peer.leased:
            # It was never written: no attempt.
            self.holder.release(peer.leased.pop().token, 0.0, counted=False)

    # Who it is.

    def _hello(self, peer: HubPeer, node: bytes, body: bytes) -> None:
        version, epoch, was_bid_farewell, pid = frames.HELLO_BODY.unpack(body)
        if version != frames.VERSION:
            text = f"the hub speaks version {frames.VERSION} of the protocol, not {version}"
            peer.write(frame(frames.TURNED_AWAY, b"", text.encode()))
            raise FrameError(text)
        if not 0 < len(node) < 100:
            raise FrameError("HELLO names no node.")
        peer.node, peer.pid, peer.last_epoch, peer.kept = node, pid, epoch, was_bid_farewell
        former = self.nodes.get(node)
        if former is not None:
            # It takes its old connection for dead; what is unread there it will send again.
            former.is_lost = True
            self.dirty[former] = None
        self.nodes[node] = peer

    def _ready(self, peer: HubPeer, _name: bytes, _body: bytes) -> None:
        if not peer.is_ready:
            peer.is_ready = True
            self._on_ready(peer)

    def _ping(self, peer: HubPeer, _name: bytes, _body: bytes) -> None:
        peer.write(frame(frames.PONG))

    # Groups and nodes.

    def _join(self, peer: HubPeer, _name: bytes, body: bytes) -> None:
        for name in frames.unpack_many(body):
            if name in peer.groups:
                continue
            octets = len(name) + MEMBERSHIP_OCTETS
            if self._group_octets + octets > self.options.group_memory:
                self.counters["refused_group_memory"] += 1
                peer.refuse(
                    frames.FULL,
                    f"group_memory={self.options.group_memory} octets are taken: no room for more "
                    "groups",
                )
                return
            self._group_octets += octets
            peer.groups.add(name)
            self.groups.setdefault(name, {})[peer] = None
        peer.done += 1

    def _leave(self, peer: HubPeer, _name: bytes, body: bytes) -> None:
        for name in frames.unpack_many(body):
            if name in peer.groups:
                self._leave_one(peer, name)
        peer.done += 1

    def _leave_one(self, peer: HubPeer, name: bytes) -> None:
        peer.groups.discard(name)
        self._group_octets -= len(name) + MEMBERSHIP_OCTETS
        members = self.groups[name]
        del members[peer]
        if not members:
            del self.groups[name]

    def _group(self, peer: HubPeer, name: bytes, whole: bytes) -> None:
        members = self.groups.get(name)
        if members:
            size, bound, dirty = len(whole), self.options.peer_buffer, self.dirty
            for member in members:
                if member.out_octets + size > bound and member.out_octets:
                    self._miss(member)
                    continue
                member.out.append(whole)
                member.out_octets += size
                dirty[member] = None
        if self.engine.groups:
            self._to_queues(peer, name, whole)
        peer.done += 1

    def _to_queues(self, peer: HubPeer, name: bytes, whole: bytes) -> None:
        group = name.decode()
        if group not in self.engine.groups:
            return
        envelope = self._envelope(whole[frames.HEAD.size + len(name) :])
        if envelope is None or self.seen.is_repeat(envelope.sender, envelope.seq):
            return
        full, members = self.engine.publish(group, envelope, self._capacity_of)
        if full:
            self.counters["refused_full"] += full
            body = frames.TALLY.pack(full, members)
            peer.write(frame(frames.OVER_CAPACITY, name, body))

    def _node(self, peer: HubPeer, name: bytes, whole: bytes) -> None:
        member = self.nodes.get(name)
        if member is None:
            peer.refuse(frames.GONE, "no such process")
            return
        if member.out_octets + len(whole) > self.options.peer_buffer and member.out_octets:
            self.counters["refused_peer_buffer"] += 1
            peer.refuse(frames.FULL, f"process {member.pid} does not read: its peer_buffer is full")
            return
        member.write(whole)
        self.dirty[member] = None
        peer.done += 1

    def _miss(self, member: HubPeer) -> None:
        """A slow peer delays nobody: it misses what does not fit, and is told so."""
        self.counters["dropped_peer_buffer"] += 1
        member.missed += 1
        self.dirty[member] = None

    # Queues.

    def _push(self, peer: HubPeer, name: bytes, body: bytes) -> None:
        queue = name.decode()
        capacity = frames.CAPACITY.unpack_from(body)[0]
        envelope = self._envelope(body[frames.CAPACITY.size :])
        if envelope is not None and not self._is_repeat(envelope):
            try:
                self.engine.push(queue, envelope, capacity)
            except ChannelFull as error:
                self.counters["refused_full"] += 1
                peer.refuse(frames.FULL, str(error))
                return
        peer.done += 1

    def _envelope(self, data: bytes) -> Envelope | None:
        """What a peer sends to a queue; None, and counted, if it is none that is known here.

        The peer may be of a newer release, in the middle of a deploy: it stays connected.
        """
        try:
            return decode_envelope(data)
        except MalformedEnvelope:
            self.counters["dropped_malformed"] += 1
            return None

    def _is_repeat(self, envelope: Envelope) -> bool:
        """True, and counted, if it was sent again and had come before."""
        is_repeat = self.seen.is_repeat(envelope.sender, envelope.seq)
        if is_repeat:
            self.counters["dropped_repeated"] += 1
        return is_repeat

    def _add_queue(self, peer: HubPeer, name: bytes, body: bytes) -> None:
        group = name.decode()
        expires = frames.EXPIRES.unpack_from(body)[0]
        queue = body[frames.EXPIRES.size :].decode()
        try:
            self.engine.add(group, queue, expires)
        except ChannelFull as error:
            self.counters["refused_group_memory"] += 1
            peer.refuse(frames.FULL, str(error))
            return
        peer.done += 1

    def _discard_queue(self, peer: HubPeer, name: bytes, body: bytes) -> None:
        group = name.decode()
        self.engine.discard(group, body.decode())
        peer.done += 1

    def _flush(self, peer: HubPeer, _name: bytes, _body: bytes) -> None:
        self.holder.clear()
        self.engine.flush()
        for other in self.nodes.values():
            other.leased.clear()
        peer.done += 1

    # Delays and leases.

    def _push_later(self, peer: HubPeer, name: bytes, body: bytes) -> None:
        due, bound = frames.LATER_BODY.unpack_from(body)
        if not isfinite(due):
            raise FrameError("PUSH_LATER names no time.")
        envelope = self._envelope(body[frames.LATER_BODY.size :])
        if envelope is not None and not self._is_repeat(envelope):
            try:
                self.holder.delay(name.decode(), envelope, due, bound)
            except ChannelFull as error:
                self.counters["refused_full"] += 1
                peer.refuse(frames.FULL, str(error))
                return
        peer.done += 1

    def _lease(self, peer: HubPeer, name: bytes, body: bytes) -> None:
        count, seconds = frames.LEASE_BODY.unpack(body)
        if not 0 <= seconds < inf:
            raise FrameError("LEASE names no time.")
        try:
            self.holder.demand(peer, name.decode(), count, seconds, peer.on_leased)
        except ChannelFull:
            self.counters["refused_queues"] += 1

    def _acknowledge(self, peer: HubPeer, _name: bytes, body: bytes) -> None:
        self._end_lease(peer, self.holder.acknowledge(body))

    def _release(self, peer: HubPeer, _name: bytes, body: bytes) -> None:
        self._end_lease(peer, self.holder.release(*_checked(frames.RELEASE_BODY.unpack(body))))

    def _unwanted(self, _peer: HubPeer, _name: bytes, body: bytes) -> None:
        self.holder.release(*_checked(frames.RELEASE_BODY.unpack(body)))

    def _extend(self, peer: HubPeer, _name: bytes, body: bytes) -> None:
        self._end_lease(peer, self.holder.extend(*_checked(frames.EXTEND_BODY.unpack(body))))

    def _end_lease(self, peer: HubPeer, was_running: bool) -> None:
        if was_running:
            peer.done += 1
        else:
            peer.refuse(frames.GONE, "the lease is over")


def _checked(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """(token, seconds, ...) of a frame about a lease."""
    if not isfinite(fields[1]):
        raise FrameError("A frame about a lease names no time.")
    return fields
