"""One request or WebSocket, as the methods of `daphne.server.Server` are told of it."""

from __future__ import annotations

from channels.kit.types import Message, Scope, Send


class Protocol:
    """A request or a WebSocket that an application is serving."""

    __slots__ = ("_send", "scope")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self._send = send

    async def handle_reply(self, message: Message) -> None:
        """Send a message of the application to the client, as the application's `send` does."""
        await self._send(message)


class ListeningPort:
    """A place that the server listens at, with Twisted's name for asking where that is."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int | None) -> None:
        #: An address, or the path of a Unix socket.
        self.host = host
        #: None for a Unix socket.
        self.port = port

    def getHost(self) -> ListeningPort:  # noqa: N802 - Twisted's name
        """The address, with `host` and `port`."""
        return self
