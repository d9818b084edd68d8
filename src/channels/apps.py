"""The Django application: `"channels"` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    """Brings `runserver`, `runworker` and the system checks."""

    name = "channels"
    verbose_name = "Channels"
