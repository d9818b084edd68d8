"""The layers of this process as Channels 1 knows them: blocking, each with its routing."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import django
from django.apps import apps

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.layers.registry import channel_layers as registry
from channels.legacy.layer import Asgi1Layer
from channels.legacy.routing import Router

__all__ = [
    "ChannelLayerManager",
    "ChannelLayerWrapper",
    "InvalidChannelLayerError",
    "channel_layers",
    "get_channel_layer",
]


class ChannelLayerWrapper:
    """A layer with its alias and its routing; everything else is the layer's.

    Args:
        channel_layer: ASGI 1's verbs; a layer of today is put behind them.
        routing: A dotted path to a list or dict of routes, or one itself.
    """

    def __init__(self, channel_layer: Any, alias: str, routing: Any) -> None:
        if inspect.iscoroutinefunction(getattr(channel_layer, "receive", None)):
            channel_layer = Asgi1Layer(channel_layer)
        self.channel_layer = channel_layer
        self.alias = alias
        self.routing = routing

    @cached_property
    def router(self) -> Router:
        """Finds the consumer of a message; made from the routing when it is first used."""
        return Router(self.routing)

    def __getattr__(self, name: str) -> Any:
        # Asked for before __init__, by copy or pickle for example, there is nothing to look in.
        if name == "channel_layer":
            raise AttributeError(name)
        return getattr(self.channel_layer, name)

    def __repr__(self) -> str:
        return f"<ChannelLayerWrapper {self.alias!r}>"

    def local_only(self) -> bool:
        """True if the layer does not leave this process."""
        return bool(getattr(self.channel_layer, "is_in_process", False))


class ChannelLayerManager:
    """Aliases and their wrapped layers, made on first use from the setting CHANNEL_LAYERS.

    The layers themselves are those of `channels.layers.channel_layers`.
    """

    def __init__(self) -> None:
        self._wrappers: dict[str, ChannelLayerWrapper] = {}
        self._lock = threading.RLock()

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """The setting."""
        return registry.configs

    def make_backend(self, name: str) -> ChannelLayerWrapper:
        """A new layer from the CONFIG of an alias.

        Raises:
            KeyError: For an alias that is not configured.
            InvalidChannelLayerError: If it has no ROUTING, or cannot be made.
        """
        return self._wrap(name, registry.make_backend(name))

    def make_test_backend(self, name: str) -> ChannelLayerWrapper:
        """A new layer from the TEST_CONFIG of an alias; raises as `make_backend` does."""
        return self._wrap(name, registry.make_test_backend(name))

    def _wrap(self, name: str, layer: Any) -> ChannelLayerWrapper:
        # A layer that was put in an alias's place has no routing of its own.
        routing = getattr(layer, "routing", None) or self.configs.get(name, {}).get("ROUTING")
        if routing is None:
            raise InvalidChannelLayerError(
                f"No ROUTING specified for {name!r} in CHANNEL_LAYERS: the API of Channels 1 "
                'needs it, for example "mysite.routing.channel_routing".'
            )
        return ChannelLayerWrapper(layer, name, routing)

    def set(self, key: str, layer: ChannelLayerWrapper | None) -> ChannelLayerWrapper | None:
        """Put a layer (None: the configured one) in an alias's place; returns the former one."""
        with self._lock:
            former = self._wrappers.pop(key, None)
            inner = None
            if layer is not None:
                self._wrappers[key] = layer
                inner = getattr(layer.channel_layer, "layer", None)
            registry.set(key, inner)
            return former

    def __getitem__(self, key: str) -> ChannelLayerWrapper:
        with self._lock:
            wrapper = self._wrappers.get(key)
            inner = getattr(wrapper, "layer", None)
            # Settings that change, and tests, put another layer in its place.
            if wrapper is None or (inner is not None and inner is not registry[key]):
                wrapper = self._wrappers[key] = self._wrap(key, registry[key])
            return wrapper

    def __contains__(self, key: object) -> bool:
        # What was made for former settings counts no more, unless it is another package's: that has
        # no layer of today's behind it, which the settings could name.
        return key in registry or any(
            alias == key and not hasattr(wrapper, "layer")
            for alias, wrapper in self._wrappers.items()
        )


#: The layers of this process.
channel_layers: Final = ChannelLayerManager()


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """The layer that an interface server is given, for `asgi.py`; sets Django up.

    Raises:
        KeyError: For an alias that is not configured.
        InvalidChannelLayerError: If it is configured wrongly.
    """
    if not apps.ready:
        django.setup(set_prefix=False)
    return channel_layers[alias].channel_layer
