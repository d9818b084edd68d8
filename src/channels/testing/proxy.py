"""A proxy between a layer and its broker that breaks connections in the ways that networks do.

    cut()       all connections end at once
    refuse()    new ones are refused; `accept()` lets them in again
    stall()     nothing is read or passed on; what was sent waits in the kernel's buffers
    swallow()   what is sent vanishes, and nothing comes back: a half-open connection
    delay       seconds that everything is held back, in order
    heal()      end of stall, swallow and delay; what was swallowed stays lost

New connections suffer what the others do, `swallow` included.  It runs on the loop of its test and
has no task but one for each connection that is being made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Self, cast

from channels.kit.tasks import TaskScope

#: A host and port, or the path of a Unix socket.
Address = tuple[str, int] | str

_LOOPBACK: Final = "127.0.0.1"


class ChaosProxy:
    """Passes bytes between clients and `target`, until told otherwise.

    An asynchronous context manager.  It listens on a free port of the loopback interface, or on
    `path` if that is given.
    """

    def __init__(self, target: Address, *, path: str | None = None) -> None:
        self.target = target
        self.delay = 0.0
        #: Connections made so far.
        self.accepted = 0
        self.is_stalled = False
        self.is_swallowing = False
        self.ends: set[_End] = set()
        self.tasks = TaskScope("chaos proxy")
        self._path = path
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where clients connect; the same for its whole life."""
        return self._path if self._path is not None else (_LOOPBACK, self._port)

    @property
    def port(self) -> int:
        return self._port

    def __len__(self) -> int:
        """How many connections of clients are open."""
        return sum(end.is_client for end in self.ends)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        await self.tasks.close()
        self.cut()
        # The transports say that they have ended in the loop's next turn.
        await asyncio.sleep(0)

    def cut(self) -> int:
        """End all connections, both ways, without a word; returns how many clients had one."""
        clients = len(self)
        for end in list(self.ends):
            end.abort()
        return clients

    def refuse(self) -> None:
        """Let nobody in any more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def accept(self) -> None:
        """Let clients in."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        if self._path is not None:
            self._server = await loop.create_unix_server(lambda: _End(self, True), self._path)
        else:
            self._server = await loop.create_server(lambda: _End(self, True), _LOOPBACK, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        """Read nothing more."""
        self.is_stalled = True
        for end in self.ends:
            end.regulate()

    def swallow(self) -> None:
        """Lose what is sent, both ways, without ending a connection."""
        self.is_swallowing = True

    def heal(self) -> None:
        """Pass on again."""
        self.is_stalled = self.is_swallowing = False
        self.delay = 0.0
        for end in self.ends:
            end.regulate()


class _End(asyncio.Protocol):
    """One side of a connection: a client's, or the one to the target."""

    def __init__(self, proxy: ChaosProxy, is_client: bool, peer: _End | None = None) -> None:
        self.is_client = is_client
        self._proxy = proxy
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._peer_is_full = False
        self._is_reading = True
        #: What `delay` holds back, and when the last of it is due.
        self._held: deque[bytes] = deque()
        self._due = 0.0
        self._is_ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._proxy.ends.add(self)
        self.regulate()
        if self.is_client:
            self._proxy.accepted += 1
            self._proxy.tasks.spawn(self._reach(), name="connection to the target")
        elif self._peer is not None:
            self._peer.meet(self)

    async def _reach(self) -> None:
        loop, target = asyncio.get_running_loop(), self._proxy.target
        try:
            if isinstance(target, str):
                await loop.create_unix_connection(lambda: _End(self._proxy, False, self), target)
            else:
                await loop.create_connection(lambda: _End(self._proxy, False, self), *target)
        except OSError:
            self.abort()

    def meet(self, peer: _End) -> None:
        """The target is there: give it what the client has sent meanwhile."""
        self._peer = peer
        early, self._early = self._early, []
        for data in early:
            peer.take(data)
        if self._transport is None or self._transport.is_closing():
            peer.abort()

    def data_received(self, data: bytes) -> None:
        if self._proxy.is_swallowing:
            return
        if self._peer is None:
            self._early.append(data)
        else:
            self._peer.take(data)

    def take(self, data: bytes) -> None:
        """Send this, after the delay; what is still held back goes first."""
        delay = self._proxy.delay
        if not (delay or self._held):
            self._write(data)
            return
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() + delay)
        self._held.append(data)
        loop.call_at(self._due, self._release)

    def _release(self) -> None:
        data = self._held.popleft()
        if not self._proxy.is_swallowing:
            self._write(data)
        if self._is_ending and not self._held and self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.peer_filled(True)

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.peer_filled(False)

    def peer_filled(self, is_full: bool) -> None:
        self._peer_is_full = is_full
        self.regulate()

    def regulate(self) -> None:
        """Read as long as nothing speaks against it."""
        transport = self._transport
        wants = not (self._peer_is_full or self._proxy.is_stalled)
        if transport is None or transport.is_closing() or wants == self._is_reading:
            return
        self._is_reading = wants
        if wants:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._proxy.ends.discard(self)
        if self._peer is not None and not self._proxy.is_swallowing:
            self._peer.end()

    def end(self) -> None:
        """The other side has closed: so does this one, once it has sent what is due."""
        self._is_ending = True
        if not self._held and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
