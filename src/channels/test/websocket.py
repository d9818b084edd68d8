"""Where Channels 1 had its WebSocket client."""

from channels.legacy.test.websocket import WSClient

__all__ = ["WSClient"]
