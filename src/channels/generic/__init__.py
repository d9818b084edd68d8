"""Consumers to extend, by protocol."""

from channels.kit.old_names import old_names

#: Of Channels 1.
__getattr__ = old_names(__name__, {"BaseConsumer": "channels.legacy.generic.base"})
