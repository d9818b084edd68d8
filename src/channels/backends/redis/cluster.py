"""A Redis Cluster as shards: each is a slot, and its connections go to whoever owns that.

The keys of a shard bear its tag in braces, so that all of them are in its slot and its scripts run
as on a single server.  A slot that moves breaks the line (MOVED), and the next connection finds
the new owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import RedisError

from channels.backends.redis.connection import RedisConnection
from channels.backends.redis.hosts import Host
from channels.backends.shell import Broken

_TAGS_TRIED: Final = 10_000
_SLOTS: Final = 16384


class SlotServer:
    """The owner of one tag's slot.

    Args:
        hosts: Nodes of the cluster to ask; not all of them.
    """

    def __init__(self, hosts: Sequence[Host], tag: str) -> None:
        self.name = f"tag {tag}"
        self.tag = tag
        self._hosts = list(hosts)
        self._slot = key_slot(tag.encode())

    async def open(self) -> RedisConnection:
        """A connection to the owner, as the cluster tells it now."""
        problem: Exception = Broken("no host of the cluster is configured")
        for host in self._hosts:
            try:
                return await self._open_by(host)
            except (Broken, RedisError, OSError) as error:
                problem = error
        raise problem

    async def _open_by(self, host: Host) -> RedisConnection:
        connection = await host.open()
        try:
            slots = await connection.call("CLUSTER", "SLOTS")
        finally:
            connection.close()
        name, port = self._owner(slots)
        keywords = dict(host.keywords)
        # An owner without a name is the one that was asked.
        keywords.update({"host": name, "port": port} if name else {"port": port})
        return await replace(host, keywords=keywords).open()

    def _owner(self, slots: Any) -> tuple[str, int]:
        for first, last, owner, *_ in slots:
            if first <= self._slot <= last:
                return (owner[0] or b"").decode(), int(owner[1])
        raise Broken(f"slot {self._slot} has no owner")


def spread_tags(count: int) -> list[str]:
    """Tags whose slots lie as evenly as may be: one in each of `count` equal parts."""
    found: dict[int, str] = {}
    for number in range(_TAGS_TRIED):
        part = key_slot(str(number).encode()) * count // _SLOTS
        found.setdefault(part, str(number))
        if len(found) == count:
            break
    return [found[part] for part in sorted(found)]
