"""The application `channels.delay` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig


class DelayConfig(AppConfig):
    """Brings the table of delayed messages and `rundelay`."""

    name = "channels.legacy.delay"
    label = "delay"
    verbose_name = "Channels: delayed messages"
    #: As Channels 1 made the table.
    default_auto_field = "django.db.models.AutoField"
