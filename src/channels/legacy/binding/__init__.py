"""Data binding: a model's changes are sent to groups, and messages from clients change rows."""

from channels.legacy.binding.base import Binding

__all__ = ["Binding"]
