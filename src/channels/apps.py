"""The Django application: `"channels"` in INSTALLED_APPS."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    """Brings `runserver`, `runworker` and the system checks; `"daphne"` may stand beside it."""

    name = "channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        """Register the system checks."""
        import_module("channels.checks")
