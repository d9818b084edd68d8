"""Logging under the module name of Channels 1."""

from channels.legacy.log import handler, setup_logger

__all__ = ["handler", "setup_logger"]
