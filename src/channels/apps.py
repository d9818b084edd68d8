"""The Django application: `"channels"` in INSTALLED_APPS."""

from __future__ import annotations

import sys
from importlib import import_module

from django.apps import AppConfig

from channels.layers.isolation import join_test_run


class ChannelsConfig(AppConfig):
    """Brings `runserver`, `runworker` and the system checks; `"daphne"` may stand beside it."""

    name = "channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        """Register the system checks; in a test run, let processes that it starts be part of it."""
        import_module("channels.checks")
        import_module("channels.security.checks")
        import_module("channels.settings").watch()
        join_test_run()
        # Of Channels 1: classes that bind models, if any were defined while those loaded.
        bindings = sys.modules.get("channels.legacy.binding.base")
        if bindings is not None:
            bindings.BindingMetaclass.register_all()
