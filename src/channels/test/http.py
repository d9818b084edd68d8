"""Where Channels 1 had `HttpClient`, before it was named WSClient."""

import warnings

from channels.legacy.test import HttpClient

warnings.warn(
    "channels.test.http is deprecated: import WSClient from channels.test.",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["HttpClient"]
