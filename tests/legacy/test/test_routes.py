"""Other routes for a while."""

from __future__ import annotations

from typing import Any

import pytest

from channels import route
from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.test import apply_routes
from tests.legacy.conftest import IN_MEMORY, MakeSite


def consume(message: Any) -> None:
    """Does nothing."""


CONFIGURED = [route("configured", consume)]
ONE, TWO = route("one", consume), route("two", consume)


@pytest.fixture
def layer(site: MakeSite) -> ChannelLayerWrapper:
    return site(CONFIGURED)


@pytest.mark.parametrize(
    ("routes", "channels"),
    [
        (ONE, {"one"}),
        ([ONE, TWO], {"one", "two"}),
        ((ONE, TWO), {"one", "two"}),
        ([[ONE], [TWO]], {"one", "two"}),
        ([], set()),
    ],
)
def test_a_route_a_list_or_lists(
    layer: ChannelLayerWrapper, routes: Any, channels: set[str]
) -> None:
    with apply_routes(routes):
        assert layer.router.channels == channels
    assert layer.router.channels == {"configured"}
    assert layer.routing is CONFIGURED


def test_a_function_runs_with_them_and_leaves_none(layer: ChannelLayerWrapper) -> None:
    routes = apply_routes([ONE])

    @routes
    def test_something(expected: set[str]) -> set[str]:
        assert layer.router.channels == expected
        with apply_routes([TWO]), routes, apply_routes([TWO]):
            assert layer.router.channels == {"two"}
        return layer.router.channels

    assert test_something({"one"}) == {"one"}
    with pytest.raises(AssertionError):
        test_something({"other"})
    assert layer.router.channels == {"configured"}


def test_other_layers_than_the_default_one(settings: Any) -> None:
    entry = {"BACKEND": IN_MEMORY, "ROUTING": CONFIGURED}
    settings.CHANNEL_LAYERS = {"default": entry, "other": entry}
    with apply_routes([ONE], aliases=["other"]):
        assert channel_layers["default"].router.channels == {"configured"}
        assert channel_layers["other"].router.channels == {"one"}
