"""Settings for tests that are written as those of Channels 1 sites."""

from __future__ import annotations

from typing import Any

from django.test import override_settings

from tests.legacy.conftest import IN_MEMORY


def routed(*routes: Any, **config: Any) -> Any:
    """A decorator of test cases: the default layer is in memory, with these routes."""
    entry = {"BACKEND": IN_MEMORY, "CONFIG": config, "ROUTING": list(routes)}
    return override_settings(CHANNEL_LAYERS={"default": entry})
