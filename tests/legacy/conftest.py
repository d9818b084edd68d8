"""A site that is written for Channels 1, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from channels.legacy.asgi import ChannelLayerWrapper, channel_layers

IN_MEMORY = "channels.layers.InMemoryChannelLayer"

MakeSite = Callable[..., ChannelLayerWrapper]


@pytest.fixture
def site(settings: Any) -> MakeSite:
    """Configures the default layer with a routing, and gives it."""

    def make(routing: Any = (), backend: str = IN_MEMORY, **config: Any) -> ChannelLayerWrapper:
        entry = {"BACKEND": backend, "CONFIG": config, "ROUTING": routing}
        settings.CHANNEL_LAYERS = {"default": entry}
        return channel_layers["default"]

    return make
