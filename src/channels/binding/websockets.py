"""Where Channels 1 had data binding over WebSockets."""

from channels.legacy.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers

__all__ = ["WebsocketBinding", "WebsocketBindingWithMembers"]
