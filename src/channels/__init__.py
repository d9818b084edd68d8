"""The real-time layer of Django: an independent implementation of the Channels API."""

__version__ = "4.9.0"

DEFAULT_CHANNEL_LAYER = "default"
