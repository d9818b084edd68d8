"""The names of what a layer keeps in Redis.

    <prefix>:ep              state epoch: a random word and when it was made; new after a loss
    <prefix>:al:<node>       lease of a live process
    <prefix>:in:<node>       its inbox: a stream of envelopes
    <prefix>:ov:<node>       groups of which its inbox was too full to take an envelope
    <prefix>:g:<group>       set: nodes with members of the group
    <prefix>:gx:<group>      hash: queue that is a member -> "<expires in ms>:<capacity>"
    <prefix>:q:<channel>     list: a queue of envelopes
    <prefix>:hd              sorted set: what is delayed, by its token and the ms when it is due
    <prefix>:hl              sorted set: what is on lease, or to be tried again later; the same
    <prefix>:hb              hash: token -> queue and envelope of both
    <prefix>:sq:<session>    hash: index of the last call of a process that filled a queue
    <prefix>:sf:<session>    list: indexes of those that found it full
    <prefix>:w:<channel>     sorted set: processes that wait for a queue, by when they began to

Not kept, but published to:

    <prefix>:n:<node>        what is for one process
    <prefix>:c:<group>       what is for the processes with members of a group

With a tag all keys of a shard are in one slot of a Redis Cluster: `<prefix>:{<tag>}:...`.
"""

from __future__ import annotations

from typing import NamedTuple


class OwnKeys(NamedTuple):
    """The keys that only one process has."""

    lease: str
    inbox: str
    overflow: str
    sequence: str
    refused: str


class Keys:
    """The keys of one shard."""

    def __init__(self, prefix: str, tag: str | None = None) -> None:
        self.tag = tag
        self.base = f"{prefix}:{{{tag}}}:" if tag is not None else f"{prefix}:"
        self.epoch = f"{self.base}ep"
        #: Delayed, leased, bodies: what is held back from its queue.
        self.held = (f"{self.base}hd", f"{self.base}hl", f"{self.base}hb")

    def lease(self, node: str) -> str:
        return f"{self.base}al:{node}"

    def inbox(self, node: str) -> str:
        return f"{self.base}in:{node}"

    def own(self, node: str, session: str) -> OwnKeys:
        base = self.base
        return OwnKeys(
            lease=self.lease(node),
            inbox=self.inbox(node),
            overflow=f"{base}ov:{node}",
            sequence=f"{base}sq:{session}",
            refused=f"{base}sf:{session}",
        )

    def group(self, group: str) -> str:
        return f"{self.base}g:{group}"

    def group_queues(self, group: str) -> str:
        return f"{self.base}gx:{group}"

    def queue(self, queue: str) -> str:
        return f"{self.base}q:{queue}"

    def node_channel(self, node: str) -> str:
        return f"{self.base}n:{node}"

    def group_channel(self, group: str) -> str:
        return f"{self.base}c:{group}"
