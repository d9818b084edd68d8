"""Django's views for messages, under the module name of Channels 1."""

from channels.legacy.handler import AsgiHandler, AsgiRequest, ViewConsumer

__all__ = ["AsgiHandler", "AsgiRequest", "ViewConsumer"]
