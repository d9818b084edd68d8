"""The layers of this process by alias, built on first use from their configuration.

The configuration is a plain dict in the shape of Django's CHANNEL_LAYERS.  Without one the Django
settings are asked, by a module of a higher floor that is imported by name when it is needed: this
wing also serves applications that know no Django.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.layers.aliases import Backend, find_backend
from channels.layers.base import BaseChannelLayer
from channels.layers.isolation import join_test_run, own_prefix

Configs = Mapping[str, Mapping[str, Any]]

#: Offers `channel_layer_configs()`.
_SETTINGS_MODULE: Final = "channels.settings"


def settings_configs() -> Configs:
    """CHANNEL_LAYERS of the Django settings; empty where Django is not set up."""
    configs: Configs = importlib.import_module(_SETTINGS_MODULE).channel_layer_configs()
    return configs


class ChannelLayerManager:
    """Aliases and their layers: one object per alias and process, made on first use.

    In a test run a layer is made from TEST_CONFIG, or CONFIG if there is none, and has a prefix of
    the run's own unless TEST_CONFIG names one (`channels.layers.isolation`).

    Args:
        source: Gives the configuration when it is needed.
    """

    def __init__(self, source: Callable[[], Configs] = settings_configs) -> None:
        #: The layers made so far.
        self.backends: dict[str, BaseChannelLayer] = {}
        #: Those that were made here, not set.
        self._made: dict[str, BaseChannelLayer] = {}
        #: The test run that they were made for.
        self._test_run = ""
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
            self._made = {}

    def _reset_backends(self, setting: str = "CHANNEL_LAYERS", **_: object) -> None:
        """`reset`, as a receiver of Django's `setting_changed`."""
        if setting == "CHANNEL_LAYERS":
            self.reset()

    def make_backend(self, name: str) -> BaseChannelLayer:
        """A new layer from the CONFIG of an alias; in a test run from its TEST_CONFIG, if any.

        Raises:
            KeyError: For an alias that is not configured.
            InvalidChannelLayerError: If its BACKEND is missing or cannot be imported.
        """
        factory, config = self._plan(name, join_test_run())
        return self._routed(name, factory(**config))

    def make_test_backend(self, name: str) -> BaseChannelLayer:
        """A new layer from the TEST_CONFIG of an alias.

        Raises:
            KeyError: For an alias that is not configured.
            InvalidChannelLayerError: If it has no TEST_CONFIG, or as for `make_backend`.
        """
        if "TEST_CONFIG" not in self.configs[name]:
            raise InvalidChannelLayerError(f"No TEST_CONFIG specified for {name}")
        factory, config = self._plan(name, join_test_run(), for_tests=True)
        return self._routed(name, factory(**config))

    def _plan(
        self, name: str, run: str, *, for_tests: bool = False
    ) -> tuple[Callable[..., BaseChannelLayer], dict[str, Any]]:
        """The class of an alias's layer and its CONFIG, in the layer's words.

        Args:
            run: The test run that it is made for; empty if it is made for none.
        """
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
        for_tests = for_tests or (bool(run) and "TEST_CONFIG" in entry)
        config = backend.translate(entry.get("TEST_CONFIG" if for_tests else "CONFIG", {}))
        if run and not (for_tests and "prefix" in config):
            prefix = _prefix_parameter(factory)
            if prefix is not None:
                config["prefix"] = own_prefix(run, config.get("prefix", prefix.default))
        return factory, config

    def _routed(self, name: str, layer: BaseChannelLayer) -> BaseChannelLayer:
        if "ROUTING" in self.configs[name]:
            layer.routing = self.configs[name]["ROUTING"]
        return layer

    def follow_test_run(self) -> None:
        """Give the layers made so far to the test run that this process has become part of.

        Modules may hold them since they were imported: by a test runner before it set up the test
        environment, or by the parent of a forked worker.  So they are made anew in place.
        """
        run = join_test_run()
        if run == self._test_run:
            return
        with self._lock:
            self._test_run = run
            for name, layer in self._made.items():
                _, config = self._plan(name, run)
                if "prefix" in config:
                    vars(layer).clear()
                    cast(Any, layer).__init__(**config)
                    self._routed(name, layer)

    def set(self, key: str, layer: BaseChannelLayer | None) -> BaseChannelLayer | None:
        """Put a layer (None: the configured one) in an alias's place; returns the former one."""
        with self._lock:
            former = self.backends.pop(key, None)
            self._made.pop(key, None)
            if layer is not None:
                self.backends[key] = layer
            return former

    def __getitem__(self, key: str) -> BaseChannelLayer:
        layer = self.backends.get(key)
        # Without Django's tests in the process it becomes part of no test run later.
        if layer is not None and "django.test" not in sys.modules:
            return layer
        self.follow_test_run()
        with self._lock:
            if key not in self.backends:
                self.backends[key] = self._made[key] = self.make_backend(key)
            return self.backends[key]

    def of_one_process(self) -> list[str]:
        """The aliases whose layer other processes do not see."""
        found = []
        for name, entry in self.configs.items():
            try:
                layer_class = _load(find_backend(entry.get("BACKEND", "")))
            except ImportError:  # told when it is used
                continue
            if stays_in_its_process(layer_class):
                found.append(name)
        return found

    def out_of_reach(self) -> list[str]:
        """A sentence for each layer in use whose backend cannot be reached now."""
        return [
            f"the channel layer {name!r} is out of reach"
            for name, layer in [*self.backends.items()]
            if _is_out_of_reach(layer)
        ]

    def __contains__(self, key: object) -> bool:
        return key in self.backends or key in self.configs


def stays_in_its_process(layer_class: Any) -> bool:
    """True for an in-memory layer, of whichever package, and for what derives from one."""
    return any(
        base.__name__ == "InMemoryChannelLayer" for base in getattr(layer_class, "__mro__", ())
    )


def _is_out_of_reach(layer: Any) -> bool:
    """True if a layer has lost its backend, or has not reached it with what it is to send.

    A layer of another package is not asked.
    """
    if not isinstance(layer, BaseChannelLayer) or not hasattr(layer, "statistics"):
        return False
    found = layer.statistics()
    was_needed = any(found.get(name) for name in ("disconnected", "waiting_to_send", "given_up"))
    return was_needed and not found.get("connected", 1)


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


def _prefix_parameter(factory: Callable[..., BaseChannelLayer]) -> inspect.Parameter | None:
    """The parameter `prefix` that a layer's constructor takes, itself or to hand it up."""
    kinds = getattr(factory, "__mro__", ())
    for function in [kind.__init__ for kind in kinds if "__init__" in vars(kind)] or [factory]:
        parameters = inspect.signature(function).parameters
        if "prefix" in parameters:
            return parameters["prefix"]
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            break
    return None


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
