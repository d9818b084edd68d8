"""The real-time layer of Django: an independent implementation of the Channels API."""

from channels.kit.old_names import old_names

__version__ = "4.9.0"

DEFAULT_CHANNEL_LAYER = "default"

#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "Channel": "channels.legacy.channel",
        "Group": "channels.legacy.channel",
        "channel_layers": "channels.legacy.asgi",
        "include": "channels.legacy.routing",
        "route": "channels.legacy.routing",
        "route_class": "channels.legacy.routing",
    },
)
