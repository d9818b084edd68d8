"""Layers with their routing, as Channels 1 keeps them."""

from __future__ import annotations

from typing import Any

import pytest

import channels
import channels.layers
from channels.asgi import ChannelLayerWrapper, channel_layers, get_channel_layer
from channels.exceptions import InvalidChannelLayerError
from channels.layers import InMemoryChannelLayer
from channels.legacy.layer import Asgi1Layer
from channels.routing import route
from tests.legacy.conftest import IN_MEMORY, MakeSite

jobs = [route("jobs", "channels.legacy.routing.null_consumer")]


def test_a_layer_has_its_routing(site: MakeSite) -> None:
    layer = site(f"{__name__}.jobs")
    assert layer.alias == "default"
    assert layer.router.channels == {"jobs"}
    assert layer is channel_layers["default"] is channels.channel_layers["default"]
    assert "default" in channel_layers
    assert "other" not in channel_layers
    assert layer.local_only()


def test_what_it_has_not_itself_is_the_layers(site: MakeSite) -> None:
    layer = site()
    assert isinstance(layer.channel_layer, Asgi1Layer)
    assert layer.extensions == ["groups", "flush"]
    assert layer.layer is channels.layers.get_channel_layer()
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = layer.nothing_like_it


def test_an_interface_server_gets_the_layer_itself(site: MakeSite) -> None:
    layer = site()
    assert get_channel_layer() is layer.channel_layer


def test_a_layer_without_routing_is_refused(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY}}
    with pytest.raises(InvalidChannelLayerError, match="No ROUTING specified for 'default'"):
        _ = channel_layers["default"]


def test_changed_settings_are_followed(site: MakeSite) -> None:
    before = site(jobs)
    after = site([])
    assert after is channel_layers["default"] is not before
    assert after.router.channels == set()


def test_an_alias_of_former_settings_is_there_no_more(settings: Any) -> None:
    entry = {"BACKEND": IN_MEMORY, "ROUTING": []}
    settings.CHANNEL_LAYERS = {"former": entry}
    assert channel_layers["former"].alias == "former"
    assert "former" in channel_layers
    settings.CHANNEL_LAYERS = {"default": entry}
    assert "former" not in channel_layers


def test_another_packages_layer_needs_no_settings() -> None:
    channel_layers.set("foreign", ChannelLayerWrapper(object(), "foreign", []))
    assert "foreign" in channel_layers
    channel_layers.set("foreign", None)
    assert "foreign" not in channel_layers


def test_a_layer_can_be_put_in_an_aliass_place(site: MakeSite) -> None:
    former = site(jobs)
    mine = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])
    assert channel_layers.set("default", mine) is former
    assert channel_layers["default"] is mine
    assert channels.layers.get_channel_layer() is mine.layer
    assert channel_layers.set("default", former) is mine
    assert channel_layers["default"] is former


def test_layers_for_tests_are_made_from_their_own_config(settings: Any) -> None:
    entry = {"BACKEND": IN_MEMORY, "TEST_CONFIG": {"capacity": 7}, "ROUTING": jobs}
    settings.CHANNEL_LAYERS = {"default": entry, "other": {"BACKEND": IN_MEMORY, "ROUTING": jobs}}
    assert channel_layers.make_test_backend("default").layer.capacity == 7
    assert channel_layers.make_backend("other").router.channels == {"jobs"}
    assert channel_layers.configs["default"] == entry
    with pytest.raises(InvalidChannelLayerError, match="No TEST_CONFIG"):
        channel_layers.make_test_backend("other")
