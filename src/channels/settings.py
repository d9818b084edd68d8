"""Django's settings, for the wings below that know no Django."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.signals import setting_changed

from channels.layers.registry import channel_layers


def channel_layer_configs() -> Mapping[str, Mapping[str, Any]]:
    """CHANNEL_LAYERS; empty where it is not set, and where Django is not set up at all."""
    if not settings.configured and not os.environ.get(ENVIRONMENT_VARIABLE):
        return {}
    _watch()
    configs: Mapping[str, Mapping[str, Any]] | None = getattr(settings, "CHANNEL_LAYERS", None)
    return configs or {}


@cache
def _watch() -> None:
    """Connect on first use, so that importing has no effect."""
    setting_changed.connect(_drop_layers, dispatch_uid="channels.settings.channel_layers")


def _drop_layers(*, setting: str, **_: object) -> None:
    """Forget the layers when a test overrides the setting."""
    if setting == "CHANNEL_LAYERS":
        channel_layers.reset()
