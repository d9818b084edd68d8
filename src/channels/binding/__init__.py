"""Where Channels 1 had data binding."""

from channels.legacy.binding.base import Binding

__all__ = ["Binding"]
