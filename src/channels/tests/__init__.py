"""Where Channels 1.0 had its tools for tests."""

import warnings

from channels.test import (
    ChannelLiveServerTestCase,
    ChannelTestCase,
    Client,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)

warnings.warn(
    "channels.tests is deprecated: import from channels.test.", DeprecationWarning, stacklevel=2
)

__all__ = [
    "ChannelLiveServerTestCase",
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]
