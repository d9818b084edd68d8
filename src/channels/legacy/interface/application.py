"""The interface server, an ASGI application: it runs no code of the site.

Connections become messages of a channel layer that workers take; what these reply goes to the
client.  The server that runs it does all the rest: limits, TLS, compression, heartbeats, timeouts,
the access log.  Workers may be restarted while its sockets stay open.
"""

from __future__ import annotations

from typing import Any

from channels.kit.types import Receive, Scope, Send
from channels.legacy.interface.http_bridge import RequestBridge
from channels.legacy.interface.inlet import QUEUES, Inlet
from channels.legacy.interface.options import InterfaceOptions
from channels.legacy.interface.reply_lane import FrameCache
from channels.legacy.interface.websocket_bridge import SocketBridge
from channels.server.loops import layer_on_this_loop
from channels.status import answering


class InterfaceServer:
    """Serves HTTP and WebSocket the way of Channels 1.

    Args:
        layer: A channel layer, or its face with the verbs of Channels 1.
    """

    def __init__(self, layer: Any, options: InterfaceOptions | None = None) -> None:
        self.options = options or InterfaceOptions()
        self._inlet = Inlet(getattr(layer, "layer", layer), self.options)
        self._frames = FrameCache()
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection until it is over.

        Raises:
            ValueError: If it is neither HTTP nor WebSocket.
        """
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        self._open += 1
        try:
            if kind == "websocket":
                await SocketBridge(self._inlet, self._frames, scope, receive, send).run()
            elif kind == "http":
                await RequestBridge(self._inlet, scope, receive, send).run()
            else:
                raise ValueError(f"A connection of type {kind!r}: expected 'http' or 'websocket'.")
        finally:
            self._open -= 1

    def statistics(self) -> dict[str, int]:
        """What was put into the queues and what was not, since this object was made.

        The names are those of `Inlet.counts`.
        """
        return dict(self._inlet.counts)

    def numbers(self) -> dict[str, int]:
        """For `channels status`: open connections, and what was counted."""
        return {"connections": self._open} | self.statistics()

    async def _live(self, receive: Receive, send: Send) -> None:
        """Let the layer do its I/O on the server's loop, and close it at the end."""
        layer = self._inlet.layer
        await receive()
        async with (
            layer_on_this_loop(layer),
            answering(layer, "interface", self.numbers, sorted(QUEUES)),
        ):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
