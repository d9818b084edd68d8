"""What the hub does with a message.  No socket is touched here, and no clock but the engine's.

Queues and their groups are the engine's, the same that the in-memory layer runs on.  A group's
messages for nodes go out as they came in, to whoever has joined.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgpack

from channels.backends.local.options import HubOptions
from channels.backends.local.peer import HubPeer
from channels.backends.local.protocol import REQUESTS, STATEMENTS, VERSION, HubProtocolError
from channels.backends.memory.engine import MemoryEngine
from channels.backends.memory.queue import Demand
from channels.exceptions import ChannelFull, MalformedEnvelope, NodeGone
from channels.kit.clock import Clock
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, SeenWindow, decode_envelope

Handler = Callable[..., None]

#: What a membership takes beside the group's name.
MEMBERSHIP_OCTETS: Final = 200


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
            max_octets=options.message_memory,
            max_queues=options.max_queues,
            max_memberships=options.group_memory // MEMBERSHIP_OCTETS,
        )
        self.seen = SeenWindow()
        self.groups: dict[str, dict[HubPeer, None]] = {}
        self.nodes: dict[str, HubPeer] = {}
        self.dirty: dict[HubPeer, None] = {}
        self.counters: Counter[str] = Counter()
        self._capacity_of = capacity_of
        self._on_ready = on_ready
        self._group_octets = 0
        self._pack = msgpack.Packer().pack
        #: Kind -> the method of that name below.
        self._statements: dict[str, Handler] = {kind: getattr(self, kind) for kind in STATEMENTS}
        self._requests: dict[str, Handler] = {kind: getattr(self, kind) for kind in REQUESTS}

    def take(self, peer: HubPeer, messages: list[list[Any]]) -> None:
        """Carry out what a peer has sent, of `STATEMENTS` and `REQUESTS`.

        Raises:
            HubProtocolError: If it is no client of ours; the peer is to be dropped.
        """
        self.dirty[peer] = None
        for kind, *fields in messages:
            if not peer.node:
                if kind != "hello":
                    raise HubProtocolError(f"Expected hello first, found {kind}.")
                self.hello(peer, *fields)
                continue
            handler = self._requests.get(kind)
            if handler is None:
                self._statements[kind](peer, *fields)
                continue
            try:
                handler(peer, *fields)
            except (ChannelFull, NodeGone) as error:
                peer.refuse(isinstance(error, NodeGone), str(error))
            else:
                peer.done += 1

    def forget(self, peer: HubPeer) -> None:
        """It has gone; what was not written to it goes back to its queues."""
        self.dirty.pop(peer, None)
        for group in list(peer.groups):
            self.leave(peer, group)
        if self.nodes.get(peer.node) is peer:
            del self.nodes[peer.node]
        self.return_unwritten(peer)
        # There is one if the same process is here on another connection.
        self.engine.forget_reader(peer, self.nodes.get(peer.node))

    def return_unwritten(self, peer: HubPeer) -> None:
        """Put back at the head of its queues what was leased to a peer and not yet written."""
        while peer.leased:
            # It was never written: no attempt.
            self.engine.release(peer.leased.pop().token, 0.0, counted=False)

    # Who it is.

    def hello(
        self, peer: HubPeer, version: int, node: str, epoch: bytes, kept: bool, pid: int
    ) -> None:
        if version != VERSION:
            text = f"the hub speaks version {VERSION} of the protocol, not {version}"
            peer.say("turned_away", text)
            raise HubProtocolError(text)
        if peer.node or not 0 < len(node) < 100:
            raise HubProtocolError(f"Expected one hello with a node's name, found {node!r}.")
        peer.node, peer.pid, peer.epoch, peer.kept = node, pid, epoch, kept
        former = self.nodes.get(node)
        if former is not None:
            # It takes its old connection for dead; what is unread there it will send again.
            former.is_lost = True
            self.dirty[former] = None
        self.nodes[node] = peer

    def ready(self, peer: HubPeer) -> None:
        if not peer.is_ready:
            peer.is_ready = True
            self._on_ready(peer)

    def ping(self, peer: HubPeer) -> None:
        peer.say("pong")

    # Groups and nodes.

    def join(self, peer: HubPeer, group: str) -> None:
        if group in peer.groups:
            return
        octets = len(group) + MEMBERSHIP_OCTETS
        if self._group_octets + octets > self.options.group_memory:
            self.counters["refused_group_memory"] += 1
            raise ChannelFull(
                f"group_memory={self.options.group_memory} octets are taken: no room for more "
                "groups"
            )
        self._group_octets += octets
        peer.groups.add(group)
        self.groups.setdefault(group, {})[peer] = None

    def leave(self, peer: HubPeer, group: str) -> None:
        if group not in peer.groups:
            return
        peer.groups.discard(group)
        self._group_octets -= len(group) + MEMBERSHIP_OCTETS
        members = self.groups[group]
        del members[peer]
        if not members:
            del self.groups[group]

    def publish(self, peer: HubPeer, group: str, data: bytes) -> None:
        members = self.groups.get(group)
        if members:
            message, dirty = self._pack(("envelope", data)), self.dirty
            most = self.options.peer_buffer - len(message)
            for member in members:
                if member.unsent > most and member.unsent:
                    # A slow peer delays nobody: it misses what does not fit, and is told so.
                    self.counters["dropped_peer_buffer"] += 1
                    member.has_missed = True
                else:
                    member.write(message)
                dirty[member] = None
        if group in self.engine.groups:
            self._publish_to_queues(peer, group, data)

    def _publish_to_queues(self, peer: HubPeer, group: str, data: bytes) -> None:
        envelope = self._new_envelope(data)
        if envelope is None:
            return
        full, members = self.engine.publish(group, envelope, self._capacity_of)
        if full:
            self.counters["refused_full"] += full
            peer.say("over_capacity", group, full, members)

    def push_node(self, _peer: HubPeer, node: str, data: bytes) -> None:
        member = self.nodes.get(node)
        if member is None:
            raise NodeGone("no such process")
        if member.unsent and member.unsent + len(data) > self.options.peer_buffer:
            self.counters["refused_peer_buffer"] += 1
            raise ChannelFull(f"process {member.pid} does not read: its peer_buffer is full")
        member.say("envelope", data)
        self.dirty[member] = None

    # Queues.

    def _new_envelope(self, data: bytes) -> Envelope | None:
        """What a peer sends to a queue; None, and counted, if it has come before or is none.

        The peer may be of a newer release, in the middle of a deploy: it stays connected.
        """
        try:
            envelope = decode_envelope(data)
        except MalformedEnvelope:
            self.counters["dropped_malformed"] += 1
            return None
        if self.seen.is_repeat(envelope.sender, envelope.seq):
            self.counters["dropped_repeated"] += 1
            return None
        return envelope

    def _append(self, data: bytes, append: Callable[[Envelope], None]) -> None:
        envelope = self._new_envelope(data)
        if envelope is not None:
            try:
                append(envelope)
            except ChannelFull:
                self.counters["refused_full"] += 1
                raise

    def push(self, _peer: HubPeer, queue: str, data: bytes, capacity: int) -> None:
        self._append(data, lambda envelope: self.engine.push(queue, envelope, capacity))

    def push_later(self, _peer: HubPeer, queue: str, data: bytes, due: int, bound: int) -> None:
        self._append(
            data, lambda envelope: self.engine.push_later(queue, envelope, due / 1000, bound)
        )

    def add_queue(self, _peer: HubPeer, group: str, queue: str, expires: int) -> None:
        try:
            self.engine.add(group, queue, expires / 1000)
        except ChannelFull:
            self.counters["refused_group_memory"] += 1
            raise

    def discard_queue(self, _peer: HubPeer, group: str, queue: str) -> None:
        self.engine.discard(group, queue)

    def flush(self, _peer: HubPeer) -> None:
        self.engine.flush()
        for other in self.nodes.values():
            other.leased.clear()

    # Leases.

    def demand(self, peer: HubPeer, queue: str, count: int, lease: int) -> None:
        try:
            taker = partial(self._on_leased, peer)
            self.engine.demand(peer, queue, Demand(count, lease / 1000, taker))
        except ChannelFull:
            self.counters["refused_queues"] += 1

    def _on_leased(self, peer: HubPeer, leased: Leased) -> None:
        peer.leased.append(leased)
        self.dirty[peer] = None

    def acknowledge(self, _peer: HubPeer, token: bytes) -> None:
        _require(self.engine.acknowledge(token))

    def release(self, _peer: HubPeer, token: bytes, delay: int, counted: bool) -> None:
        _require(self.engine.release(token, delay / 1000, counted))

    def extend(self, _peer: HubPeer, token: bytes, lease: int) -> None:
        _require(self.engine.extend(token, lease / 1000))

    def backlog(self, peer: HubPeer, queue: str) -> None:
        found = self.engine.backlog(queue)
        peer.say("backlog", peer.done + 1, found.waiting, found.deadline or 0)


def _require(was_running: bool) -> None:
    if not was_running:
        raise NodeGone("the lease is over")
