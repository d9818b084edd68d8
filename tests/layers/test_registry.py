"""Aliases to layers: errors, caching, test configurations, older names."""

import sys
import types
from typing import Any

import pytest
from django.test import override_settings

from channels.exceptions import InvalidChannelLayerError
from channels.layers import (
    BaseChannelLayer,
    ChannelLayerManager,
    channel_layers,
    get_channel_layer,
)
from channels.layers.aliases import BACKENDS, Backend

BASE = "channels.layers.base.BaseChannelLayer"


def manager(**configs: dict[str, Any]) -> ChannelLayerManager:
    return ChannelLayerManager(lambda: configs)


def test_one_layer_per_alias_with_its_config() -> None:
    layers = manager(default={"BACKEND": BASE, "CONFIG": {"capacity": 7}}, other={"BACKEND": BASE})
    assert isinstance(layers["default"], BaseChannelLayer)
    assert layers["default"] is layers["default"]
    assert layers["default"].capacity == 7
    assert layers["other"].capacity == 100
    assert "other" in layers
    assert "third" not in layers


def test_no_backend() -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"^No BACKEND specified for default$"):
        manager(default={}).make_backend("default")


def test_backend_that_cannot_be_imported() -> None:
    for path in ("no.such.module.Layer", "channels.layers.base.NoSuchLayer", "Layer"):
        with pytest.raises(InvalidChannelLayerError) as caught:
            manager(default={"BACKEND": path})["default"]
        assert str(caught.value).startswith(f"Cannot import BACKEND {path!r} specified for default")


def test_test_config() -> None:
    layers = manager(
        default={"BACKEND": BASE, "TEST_CONFIG": {"expiry": 3}}, plain={"BACKEND": BASE}
    )
    assert layers.make_test_backend("default").expiry == 3
    with pytest.raises(InvalidChannelLayerError, match=r"^No TEST_CONFIG specified for plain$"):
        layers.make_test_backend("plain")
    with pytest.raises(KeyError):
        layers.make_test_backend("absent")


def test_set_returns_the_former_layer() -> None:
    layers = manager(default={"BACKEND": BASE})
    first = layers["default"]
    mine = BaseChannelLayer()
    assert layers.set("default", mine) is first
    assert layers["default"] is mine
    assert layers.set("default", None) is mine
    assert layers["default"] not in {mine, first}
    assert layers.set("unknown", mine) is None
    assert "unknown" in layers


def test_routing_marks_a_layer_of_the_channels_1_way() -> None:
    layers = manager(default={"BACKEND": BASE, "ROUTING": "site.routing"}, plain={"BACKEND": BASE})
    assert layers["default"].routing == "site.routing"
    assert layers["plain"].routing is None


def test_older_names_and_their_config_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Backend(BASE, renamed={"limit": "capacity"}, ignored=frozenset({"shm"}))
    monkeypatch.setitem(BACKENDS, "old.Layer", row)
    layer = manager(default={"BACKEND": "old.Layer", "CONFIG": {"limit": 4, "shm": 1}})["default"]
    assert layer.capacity == 4


def test_unknown_alias_is_none_and_a_key_error_inside_a_backend_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("broken_backend")

    def broken(**config: object) -> None:
        raise KeyError("inside")

    module.Layer = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_backend", module)
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "broken_backend.Layer"}}):
        assert get_channel_layer("nobody") is None
        with pytest.raises(KeyError, match="inside"):
            get_channel_layer()


def test_override_settings_drops_the_layers() -> None:
    before = get_channel_layer
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": BASE}}):
        first = get_channel_layer()
        assert first is before()
        assert "default" in channel_layers.backends
    with override_settings(CHANNEL_LAYERS={}):
        assert channel_layers.backends == {}
        assert get_channel_layer() is None


def test_a_plain_dict_serves_without_django() -> None:
    layers = ChannelLayerManager()
    layers.configure({"default": {"BACKEND": BASE}})
    assert isinstance(layers["default"], BaseChannelLayer)
    layers.configure({})
    assert "default" not in layers


def test_reset_backends_drops_the_layers_of_the_setting() -> None:
    layers = manager(default={"BACKEND": BASE})
    first = layers["default"]
    layers._reset_backends(setting="DEBUG")
    assert layers["default"] is first
    layers._reset_backends("CHANNEL_LAYERS", value=None, enter=True)
    assert layers["default"] is not first


def test_layers_that_other_processes_do_not_see_are_named() -> None:
    manager = ChannelLayerManager(
        lambda: {
            "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
            "former": {"BACKEND": "asgiref.inmemory.ChannelLayer"},
            "local": {"BACKEND": "channels.layers.LocalChannelLayer"},
            "missing": {"BACKEND": "nowhere.Layer"},
        }
    )
    assert manager.of_one_process() == ["default", "former"]


class Reporting(BaseChannelLayer):
    """A layer that reports what it is told to."""

    found: dict[str, int]

    def statistics(self) -> dict[str, int]:
        return self.found


@pytest.mark.parametrize(
    ("found", "is_away"),
    [
        ({"connected": 1, "disconnected": 3}, False),
        # Before its first use.
        ({"connected": 0, "disconnected": 0, "waiting_to_send": 0}, False),
        ({"connected": 0, "disconnected": 1}, True),
        # It has never been there.
        ({"connected": 0, "waiting_to_send": 2}, True),
        ({"connected": 0, "given_up": 2}, True),
        # Another package's words.
        ({"disconnected": 1}, False),
    ],
)
def test_layers_out_of_reach_are_named(found: dict[str, int], is_away: bool) -> None:
    layers = manager(default={"BACKEND": BASE}, plain={"BACKEND": BASE})
    layer = Reporting()
    layer.found = found
    layers.set("mine", layer)
    assert isinstance(layers["plain"], BaseChannelLayer)
    assert layers.out_of_reach() == ["the channel layer 'mine' is out of reach"] * is_away
