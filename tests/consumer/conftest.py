"""A layer of our kind, or none, for the tests of consumers."""

from __future__ import annotations

import pytest

from channels.layers import channel_layers
from tests.consumer.stubs import DrivingServer, ForeignLayer, ForeignServer, OurServer, StubLayer


@pytest.fixture(autouse=True)
def no_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is configured unless a test does so."""
    monkeypatch.setattr(channel_layers, "_source", dict)
    monkeypatch.setattr(channel_layers, "backends", {})


@pytest.fixture
def layer(no_layers: None) -> StubLayer:
    stub = StubLayer()
    channel_layers.backends["default"] = stub  # type: ignore[assignment]
    return stub


@pytest.fixture
def foreign_layer(no_layers: None) -> ForeignLayer:
    stub = ForeignLayer()
    channel_layers.backends["default"] = stub  # type: ignore[assignment]
    return stub


@pytest.fixture(
    params=[ForeignServer, OurServer, DrivingServer],
    ids=["foreign server", "our server", "driving server"],
)
def server(request: pytest.FixtureRequest) -> type[ForeignServer]:
    """Every kind of server: what a consumer does is the same under each."""
    kind: type[ForeignServer] = request.param
    return kind
