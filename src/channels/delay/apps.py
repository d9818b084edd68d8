"""What "channels.delay" in INSTALLED_APPS stands for."""

from channels.legacy.delay.apps import DelayConfig

__all__ = ["DelayConfig"]
