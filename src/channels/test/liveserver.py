"""Where Channels 1 had its live server."""

from channels.legacy.test.live import ChannelLiveServerTestCase

__all__ = ["ChannelLiveServerTestCase"]
