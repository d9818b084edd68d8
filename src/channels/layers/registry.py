"""The layers of this process by alias, built on first use from their configuration.

The configuration is a plain dict in the shape of Django's CHANNEL_LAYERS.  Without one the Django
settings are asked, by a module of a higher floor that is imported by name when it is needed: this
wing also serves applications that know no Django.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.layers.aliases import Backend, find_backend
from channels.layers.base import BaseChannelLayer

Configs = Mapping[str, Mapping[str, Any]]

#: Offers `channel_layer_configs()`.
_SETTINGS_MODULE: Final = "channels.settings"


class _SettingsModule(Protocol):
    def channel_layer_configs(self) -> Configs: ...


def settings_configs() -> Configs:
    """CHANNEL_LAYERS of the Django settings; empty where Django is not set up."""
    return cast(_SettingsModule, importlib.import_module(_SETTINGS_MODULE)).channel_layer_configs()


class ChannelLayerManager:
    """Aliases and their layers: one object per alias and process, made on first use.

    Args:
        source: Gives the configuration when it is needed.
    """

    def __init__(self, source: Callable[[], Configs] = settings_configs) -> None:
        #: The layers made so far.
        self.backends: dict[str, BaseChannelLayer] = {}
        self._source = source
        self._lock = threading.RLock()

    @property
    def configs(self) -> Configs:
        return self._source()

    def configure(self, configs: Configs) -> None:
        """Take this configuration from now on; layers made so far are forgotten."""
        with self._lock:
            self._source = lambda: configs
            self.reset()

    def reset(self) -> None:
        """Forget the layers made so far: the configuration has changed."""
        with self._lock:
            self.backends = {}

    def make_backend(self, name: str) -> BaseChannelLayer:
        """A new layer from the CONFIG of an alias.

        Raises:
            KeyError: For an alias that is not configured.
            InvalidChannelLayerError: If its BACKEND is missing or cannot be imported.
        """
        return self._make_backend(name, self.configs[name].get("CONFIG", {}))

    def make_test_backend(self, name: str) -> BaseChannelLayer:
        """A new layer from the TEST_CONFIG of an alias.

        Raises:
            KeyError: For an alias that is not configured.
            InvalidChannelLayerError: If it has no TEST_CONFIG, or as for `make_backend`.
        """
        try:
            config = self.configs[name]["TEST_CONFIG"]
        except KeyError:
            if name not in self.configs:
                raise
            raise InvalidChannelLayerError(f"No TEST_CONFIG specified for {name}") from None
        return self._make_backend(name, config)

    def _make_backend(self, name: str, config: Mapping[str, Any]) -> BaseChannelLayer:
        entry = self.configs[name]
        path = entry.get("BACKEND")
        if not path:
            raise InvalidChannelLayerError(f"No BACKEND specified for {name}")
        backend = find_backend(path)
        try:
            factory = _load(backend)
        except ImportError as error:
            raise InvalidChannelLayerError(
                f"Cannot import BACKEND {path!r} specified for {name}: {error}"
            ) from error
        layer = factory(**backend.translate(config))
        if "ROUTING" in entry:
            layer.routing = entry["ROUTING"]
        return layer

    def set(self, key: str, layer: BaseChannelLayer | None) -> BaseChannelLayer | None:
        """Put a layer (None: the configured one) in an alias's place; returns the former one."""
        with self._lock:
            former = self.backends.pop(key, None)
            if layer is not None:
                self.backends[key] = layer
            return former

    def __getitem__(self, key: str) -> BaseChannelLayer:
        layer = self.backends.get(key)
        if layer is not None:
            return layer
        with self._lock:
            if key not in self.backends:
                self.backends[key] = self.make_backend(key)
            return self.backends[key]

    def __contains__(self, key: object) -> bool:
        return key in self.backends or key in self.configs


def _load(backend: Backend) -> Callable[..., BaseChannelLayer]:
    module, _, attribute = backend.path.rpartition(".")
    if not module:
        raise ImportError(f"{backend.path!r} is no dotted path to a class")
    try:
        return cast(
            Callable[..., BaseChannelLayer], getattr(importlib.import_module(module), attribute)
        )
    except AttributeError:
        raise ImportError(f"module {module!r} has no {attribute!r}") from None


#: The layers of this process.
channel_layers: Final = ChannelLayerManager()


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """The layer of an alias, or None if no such alias is configured.

    Raises:
        InvalidChannelLayerError: If it is configured wrongly.
    """
    # Asked first instead of catching KeyError, so that one raised inside a backend is seen.
    if alias not in channel_layers:
        return None
    return channel_layers[alias]
