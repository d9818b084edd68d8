"""Sessions over Unix sockets: the edge listens, workers of its machine connect.

The socket has a name and no file (Linux's abstract namespace), so that nothing lies about when an
edge has died, and no cleaner of temporary files can take it away.  Two sides meet there only if

    the kernel says of each that the other's process is the same user's,
    and the worker knows the token, which stands in the edge's offers alone: in the channel layer.

Everywhere else, between machines, users and containers with networks of their own, the layer
carries the session.

Close order: the listener; what is written; the sockets.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
import sys
from typing import Any, Final

from channels.backends.local.place import peer_uid
from channels.decoupled.messages import VERSION, Side, check_envelope
from channels.decoupled.peer_link import LinkHost
from channels.decoupled.socket_link import SocketLink
from channels.exceptions import MalformedMessage
from channels.kit.tasks import TaskScope
from channels.kit.types import Message

logger: Final = logging.getLogger("django.channels.decoupled")

#: Connections that have not greeted yet; more are closed at once.
MOST_GREETING: Final = 128
TOKEN_BYTES: Final = 16


class SocketCarrier:
    """This process's listener, if it is an edge, and its sockets to others."""

    def __init__(self, side: Side, host: LinkHost) -> None:
        self._side: Side = side
        self._host = host
        self._token = os.urandom(TOKEN_BYTES)
        #: What an offer says of the socket.
        self.address: Message = {}
        self._server: asyncio.Server | None = None
        #: Sockets that are open, whatever was said there.
        self._sockets: set[SocketLink] = set()
        self._has_closed = asyncio.Event()
        self._tasks = TaskScope("sockets between edge and worker")

    @property
    def _is_wanted(self) -> bool:
        return self._host.options.link == "auto" and sys.platform == "linux"

    # Life.

    async def listen(self) -> None:
        """Let workers of this machine connect, if it can be had."""
        if not self._is_wanted:
            return
        name = f"channels-edge-{os.getpid()}-{os.urandom(8).hex()}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind("\0" + name)
            listener.listen(MOST_GREETING)
            listener.setblocking(False)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: SocketLink("", self._token, self._host, self), sock=listener
            )
        except OSError as error:
            listener.close()
            logger.warning("Workers are reached through the layer only: no socket: %s", error)
            return
        self.address = {"address": name, "token": self._token}

    async def close(self, seconds: float) -> None:
        """Listen no more, let what is written go out for so long at most, and close the sockets."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.address = {}
        await self._tasks.close()
        try:
            async with asyncio.timeout(seconds):
                while self._sockets:
                    self._has_closed.clear()
                    await self._has_closed.wait()
        except TimeoutError:
            logger.warning("What was said last may not have reached every edge or worker.")
            for link in self._sockets:
                link.abort()

    def beat(self) -> None:
        """A heartbeat has passed: those that have not greeted are not waited for without end."""
        for link in [each for each in self._sockets if not each.peer]:
            link.missed += 1
            if link.missed > self._host.options.heartbeat_misses:
                link.end()

    @property
    def count(self) -> int:
        """Sessions that sockets carry now."""
        return sum(link.is_open for link in self._sockets)

    # A worker connects.

    def dial(self, offer: Message) -> SocketLink | None:
        """A session with the edge that made an offer; None if its socket is out of reach."""
        address, token = offer.get("address"), offer.get("token")
        if not self._is_wanted or address is None or token is None:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect("\0" + address)
            self._check_user(connection)
        except OSError as error:
            connection.close()
            logger.debug("%s is reached through the layer, not at its socket: %s", address, error)
            return None
        link = SocketLink(offer["edge"], token, self._host, self)
        self._tasks.spawn(self._open(link, connection), name=f"socket to {link.peer}")
        return link

    async def _open(self, link: SocketLink, connection: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: link, sock=connection)
        except OSError:
            connection.close()
            self._host.fall_over(link, link.waiting)
        except BaseException:
            connection.close()
            raise

    # Both.

    def _check_user(self, connection: Any) -> None:
        uid = peer_uid(connection)
        if uid != os.geteuid():
            raise PermissionError(f"the process at the other end is one of user {uid}")

    def on_connected(self, link: SocketLink) -> None:
        """The socket is open; nothing was said."""
        self._sockets.add(link)
        if self._side == "worker":
            link.write(
                {
                    "type": "decoupled.hello",
                    "version": VERSION,
                    "sender": self._host.inbox,
                    "token": link.token,
                }
            )
            return
        try:
            self._check_user(link.socket)
        except OSError as error:
            self._refuse(link, error)
        if sum(not each.is_open for each in self._sockets) > MOST_GREETING:
            self._refuse(link, "too many have not greeted")

    def on_greeting(self, link: SocketLink, raw: Any) -> None:
        """The first that the other says."""
        expected = "decoupled.welcome" if self._side == "worker" else "decoupled.hello"
        try:
            envelope = check_envelope(raw)
            if envelope["type"] != expected:
                raise MalformedMessage(f"{envelope['type']} opens no socket: expected {expected}.")
        except MalformedMessage as error:
            self._refuse(link, error)
            return
        if self._side == "edge":
            if not hmac.compare_digest(envelope["token"], link.token):
                self._refuse(link, "its token is not that of this edge's offers")
                return
            link.peer = envelope["sender"]
            if not self._host.admit(link):
                link.end()
                return
            link.write({"type": "decoupled.welcome", "version": VERSION})
        link.open()

    def _refuse(self, link: SocketLink, why: object) -> None:
        self._host.drop("sockets_refused", "A socket is closed: %s", why)
        # Not `end`: a worker goes on through the layer.
        link.abort()

    def on_closed(self, link: SocketLink) -> None:
        """The socket has ended."""
        self._sockets.discard(link)
        self._has_closed.set()
        if link.is_open:
            self._host.lost(link)
        elif link.is_alive and self._side == "worker":
            self._host.fall_over(link, link.waiting)
