"""Where Channels 1 had the base of data binding."""

from channels.legacy.binding.base import CREATE, DELETE, UPDATE, Binding, BindingMetaclass

__all__ = ["CREATE", "DELETE", "UPDATE", "Binding", "BindingMetaclass"]
