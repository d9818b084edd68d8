"""The conformance suite over every backend.

A backend adds a class, here or in a file beside this one, with the fixture `layer_factory` and what
it has not.  Backends that need a server mark their class, so that it skips with the reason where
there is none, and fails in CI.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from channels.layers import InMemoryChannelLayer, LocalChannelLayer
from channels.testing.layers import Features, LayerConformance
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer


class TestInMemory(LayerConformance):
    features: ClassVar[Features] = Features(
        spans_processes=False, refuses_objects=False, delays=True, leases=True
    )

    @pytest.fixture
    def layer_factory(self) -> Callable[..., Any]:
        return InMemoryChannelLayer


class TestLoopback(LayerConformance):
    """The node's own test transport: every road that brokers use, without one.

    Its broker is an object of this process, so a forked child talks to a copy of it.
    """

    features: ClassVar[Features] = Features(forks=False, delays=True, leases=True)

    @pytest.fixture
    def layer_factory(self) -> Callable[..., Any]:
        broker = LoopbackBroker()
        return lambda **config: LoopbackChannelLayer(broker, **config)


class TestLocal(LayerConformance):
    """Processes are objects here, each with a socket of its own; `tests/cluster` has real ones."""

    features: ClassVar[Features] = Features(delays=True, leases=True)

    forgeries = 10_000

    @pytest.fixture
    def layer_factory(self, short_path: Path) -> Callable[..., Any]:
        return lambda **config: LocalChannelLayer(directory=short_path, **config)
