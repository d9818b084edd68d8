"""Groups that members of other threads join while they are left."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import pytest

from channels.kit.tasks import TaskScope
from channels.layers.contract import Bus
from channels.layers.process.subscriptions import Subscriptions
from channels.testing.layers.base import until


class NotedBus:
    """Notes what is joined and left."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    async def join(self, groups: Sequence[str]) -> None:
        self.calls.append(("join", list(groups)))

    async def leave(self, groups: Sequence[str]) -> None:
        self.calls.append(("leave", list(groups)))


class AddedMeanwhile(Collection[str]):
    """The groups with members, of which another thread adds one right after some look."""

    def __init__(self) -> None:
        self.groups = {"room"}
        self.looks = 0
        self.added = asyncio.Event()

    def __contains__(self, group: object) -> bool:
        is_member = group in self.groups
        self.looks -= not is_member
        if not self.looks and not is_member:
            self.groups.add("room")
            self.added.set()
        return is_member

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


@pytest.mark.parametrize("looks", [1, 2, 3])
async def test_a_member_that_is_added_while_its_group_is_left_joins_it_again(looks: int) -> None:
    bus, wanted, scope = NotedBus(), AddedMeanwhile(), TaskScope("test")
    subscriptions = Subscriptions(
        cast(Bus, bus), wanted, lambda work, name: scope.spawn(work, name=name), 0.0
    )
    assert await subscriptions.ensure("room", 10)
    wanted.groups.clear()
    wanted.looks = looks
    subscriptions.release("room")
    async with asyncio.timeout(10):
        await wanted.added.wait()
    # As the thread does it next.
    assert await subscriptions.ensure("room", 10)
    await scope.join(10)
    assert bus.calls[-1] == ("join", ["room"])
    assert "room" in subscriptions.joined


async def test_a_group_without_members_is_left_and_joined_again() -> None:
    bus, scope, wanted = NotedBus(), TaskScope("test"), dict[str, Any].fromkeys(["room"])
    subscriptions = Subscriptions(
        cast(Bus, bus), wanted, lambda work, name: scope.spawn(work, name=name), 0.0
    )
    assert await subscriptions.ensure("room", 10)
    wanted.clear()
    subscriptions.release("room")
    await until(lambda: len(bus.calls) == 2, "the leaving")
    assert "room" not in subscriptions.joined
    wanted["room"] = None
    assert await subscriptions.ensure("room", 10)
    assert bus.calls == [("join", ["room"]), ("leave", ["room"]), ("join", ["room"])]
    await asyncio.sleep(0)
    await scope.close()
