"""What all cases share: the fixtures, and small verbs on time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import pytest
import pytest_asyncio

from channels.kit.types import Message

#: Longest wait for something that must happen.
PATIENCE = 10.0


class MakeLayer(Protocol):
    """Makes a layer of the backend under test; it is closed after the test."""

    async def __call__(self, **config: Any) -> Any: ...


@dataclass(frozen=True)
class Broker:
    """The server of a backend, for the cases that break connections to it.

    Attributes:
        address: Where it listens: (host, port), or the path of a Unix socket.
        make: Called with an address and `config`; makes a layer that connects there.  All that it
            makes within one test are the same layer on several processes.
        quick: Options with which a connection that is silently dead is found out in a few seconds.
    """

    address: tuple[str, int] | str
    make: Callable[..., Any]
    quick: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """What a layer has.  Without an argument: all of the contract.

    Attributes:
        spans_processes: Two layers made by the factory see each other.
        queues: Channels that no process owns.
        queue_members: Groups take such channels, and channels of other processes.
        ordered_groups: All processes see a group's messages in one order.
        exact_capacity: ChannelFull comes with the first message over capacity.
        over_capacity_log: The INFO line on full members of a group.
        expiry: Unread messages are dropped after `expiry`, within `expiry_slack` seconds.
        group_expiry: Members that are not refreshed go after `group_expiry`.
        flush: `flush` forgets everything.
        any_loop: Usable from several threads and loops at once.
        node: Built on `NodeChannelLayer`: attach, sync, statistics.
        forks: Usable in a forked child.
        carries_bytes: The serializer takes bytes.
        any_group_name: Groups may have names that the rules refuse, as long as they are strings.
        refuses_objects: What no other process could read is refused where it is sent.
        reconnect_window: What is sent to a group while a process is cut off waits for it.
        queue_window: No message of a queue is lost when connections break.
        queue_once: None comes twice then.
        queue_ages: `backlog` tells for how long the oldest message of a queue has waited.
        exact_attempts: Leases count attempts, and not what was given back or reached nobody.
        most_sockets: Connections to the server that a process has, whoever calls the layer.
        delays: `send` takes `delay`; not in the contract, so it must be said.
        leases: `delivery` may be "at-least-once"; not in the contract either.
    """

    spans_processes: bool = True
    queues: bool = True
    queue_members: bool = True
    ordered_groups: bool = True
    exact_capacity: bool = True
    over_capacity_log: bool = True
    expiry: bool = True
    expiry_slack: float = 0.0
    group_expiry: bool = True
    flush: bool = True
    any_loop: bool = True
    node: bool = True
    forks: bool = True
    carries_bytes: bool = True
    any_group_name: bool = False
    refuses_objects: bool = True
    reconnect_window: bool = True
    queue_window: bool = True
    queue_once: bool = True
    queue_ages: bool = True
    exact_attempts: bool = True
    most_sockets: int = 3
    delays: bool = False
    leases: bool = False


class ConformanceBase:
    """The fixtures; a subclass says what it has and how a layer is made."""

    features: ClassVar[Features] = Features()
    #: How many readers are cancelled in the cases that ask for it; slow backends take fewer.
    cancelled_readers: ClassVar[int] = 1000
    pytestmark: ClassVar[list[Any]] = [pytest.mark.asyncio]

    @pytest.fixture
    def broker(self) -> Broker | None:
        """Override it if the layer reaches a server over a network."""
        return None

    @pytest.fixture
    def layer_factory(self, broker: Broker | None) -> Callable[..., Any]:
        """Override it if there is no `broker`; may also give an awaitable."""
        if broker is None:
            raise NotImplementedError("Define the fixture layer_factory, or the fixture broker.")
        return partial(broker.make, broker.address)

    @pytest_asyncio.fixture
    async def make_layer(self, layer_factory: Callable[..., Any]) -> AsyncIterator[MakeLayer]:
        made: list[Any] = []

        async def make(**config: Any) -> Any:
            layer = layer_factory(**config)
            if inspect.isawaitable(layer):
                layer = await layer
            made.append(layer)
            return layer

        yield make
        for layer in made:
            if hasattr(layer, "close"):
                await layer.close()

    def need(self, *features: str) -> None:
        """Skip the running case unless the layer has all of these."""
        missing = [name for name in features if not getattr(self.features, name)]
        if missing:
            pytest.skip(f"the layer has not: {', '.join(missing)}")

    async def make_two(self, make_layer: MakeLayer, **config: Any) -> tuple[Any, Any]:
        """Two processes' ends of one layer; one and the same where it does not span processes."""
        first = await make_layer(**config)
        return first, (await make_layer(**config) if self.features.spans_processes else first)


async def soon(work: Awaitable[Any]) -> Any:
    """The result of something that must come to pass."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def receive_all(layer: Any, channel: str, count: int) -> list[Message]:
    """The next `count` messages of a channel."""
    return [await soon(layer.receive(channel)) for _ in range(count)]


async def nothing_comes(layer: Any, channel: str, seconds: float = 0.3) -> None:
    """Fails if a message of the channel comes within `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            message = await layer.receive(channel)
            pytest.fail(f"{channel} should be empty, found {message!r}")


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Waits for a condition."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.005)
