"""The hub: a thread of one of the processes, whichever got the lock.

A thread of its own, and a plain selector on it: a loop that user code blocks for a second would
stand still for every process of the machine, while a thread goes on as soon as that code waits or
the interpreter switches (5 ms).  All sockets, timers and tables below belong to this thread; others
call `start`, `stop`, `abandon` and `statistics` only.

A new hub lets nobody speak before those who were there before can hear, which it knows by the files
that they hold locked.

Close order: no new peers, nothing read any more; what is due is written; what is unread is left to
the next hub; each peer whose stream is complete is told good-bye; sockets; lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from channels.backends.local import handover, place
from channels.backends.local.exit import before_exit
from channels.backends.local.options import HubOptions
from channels.backends.local.peer import HubPeer
from channels.backends.local.place import Lock, Place
from channels.backends.local.protocol import HubProtocolError
from channels.backends.local.switchboard import Switchboard
from channels.kit.clock import Clock, SystemClock
from channels.kit.greenlets import start_thread, wait_for

logger = logging.getLogger("channels.layers")

#: Octets read at a time; the next peer's turn comes after.
READ_OCTETS: Final = 256 * 1024
#: Longest wait for processes that are alive and do not come to a new hub.
SETTLE_SECONDS: Final = 0.3
#: How often it looks meanwhile whether they are still alive.
_LOOK_SECONDS: Final = 0.01
#: Until a connection has introduced itself.
_HELLO_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 1.0
#: How often the lock's file is shown to be in use.
_TOUCH_SECONDS: Final = 3600.0
#: For the last writes at the end.
_FAREWELL_SECONDS: Final = 0.4

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class HubServer:
    """One hub.

    Args:
        lock: The hub's, held; it is released at the end.
        longest: Octets of the longest message that is taken.
        capacity_of: See `Switchboard`.
    """

    def __init__(
        self,
        place: Place,
        lock: Lock,
        options: HubOptions,
        longest: int,
        capacity_of: Callable[[str], int],
    ) -> None:
        self.place = place
        self.options = options
        self.longest = longest
        self._clock: Clock = SystemClock()
        self.board = Switchboard(options, self._clock, capacity_of, self._on_ready)
        self._lock = lock
        self._selector = selectors.DefaultSelector()
        self._wakeup_w, self._wakeup_r = socket.socketpair()
        self._listener: socket.socket | None = None
        self._peers: set[HubPeer] = set()
        # Made once: `recv` would take 45 µs to make it each time.
        self._room = memoryview(bytearray(READ_OCTETS))
        #: Done when its thread has ended, and the lock is free; None before that has started.
        self.ended: Future[None] | None = None
        self._is_stopping = False
        self._accept_paused = False
        self._tick_at = self._touch_at = self._clock.monotonic()
        #: Who is waited for, until when, and when it is looked again whether they live.
        self._is_settled = False
        self._awaited: set[str] = set()
        self._settle_until = self._look_at = 0.0
        self._predecessor = b""

    # From other threads.

    def start(self) -> None:
        """Begin to serve; returns before it does.

        Raises:
            RuntimeError: If there can be no thread any more.
        """
        with before_exit():
            self._lock.write(str(os.getpid()))
            self.ended = start_thread(self._run, "channels-hub")

    @property
    def is_alive(self) -> bool:
        return self.ended is not None and not self.ended.done()

    def request_stop(self) -> None:
        """Have it hand over and end."""
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._wakeup_w.send(b"x")

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """The same, and wait for it."""
        self.request_stop()
        if self.ended is not None:
            with contextlib.suppress(TimeoutError):
                wait_for(self.ended, timeout_seconds)

    def abandon(self) -> None:
        """In a forked child: the thread is the parent's; let go of copies of its descriptors."""
        self._close()

    def statistics(self) -> Mapping[str, int]:
        board = self.board
        counts = {"peers": len(board.nodes), **board.engine.statistics(), **dict(board.counters)}
        return {f"hub_{name}": count for name, count in counts.items()}

    # The thread.

    def _run(self) -> None:
        try:
            self._open()
            while not self._is_stopping:
                self._turn(self._pause())
            self._say_farewell()
        except Exception:
            logger.exception("The hub at %s ends by an error", self.place.directory)
        finally:
            self._close()

    def _open(self) -> None:
        self._predecessor = handover.take_over(self.board, self.place.left)
        # Before it listens: who starts after that finds the hub, and has missed nothing.
        self._awaited = self.place.living_nodes()
        self._settle_until = self._clock.monotonic() + SETTLE_SECONDS
        self._listener = place.listen(self.place)
        self._selector.register(self._listener, _READ, None)
        self._wakeup_r.setblocking(False)
        self._wakeup_w.setblocking(False)
        self._selector.register(self._wakeup_r, _READ, None)

    def _pause(self) -> float:
        due = self.board.engine.tick()
        if self.board.dirty:
            # What was due just now is for someone.
            return 0.0
        wait = _TICK_SECONDS if self._is_settled else _LOOK_SECONDS
        return wait if due is None else min(wait, max(0.0, due - self._clock.monotonic()))

    def _turn(self, pause: float) -> None:
        for key, mask in self._selector.select(pause):
            peer = key.data
            if peer is None:
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup_r.recv(4096)
                continue
            if mask & _WRITE:
                self.board.dirty[peer] = None
            if mask & _READ:
                self._read(peer)
        self._flush()
        now = self._clock.monotonic()
        if not self._is_settled:
            self._settle(now)
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._tick(now)

    def _tick(self, now: float) -> None:
        self.board.engine.sweep()
        for peer in list(self._peers):
            if not peer.node and now - peer.since > _HELLO_SECONDS:
                self._drop(peer, "it does not say who it is")
        if self._accept_paused and self._listener is not None:
            self._accept_paused = False
            self._selector.register(self._listener, _READ, None)
        if now >= self._touch_at:
            self._touch_at = now + _TOUCH_SECONDS
            with contextlib.suppress(OSError):
                self._lock.touch()
                os.utime(self.place.socket)
        if not self._lock.is_current():
            # A tmp cleaner deleted them: new processes would find nobody here.
            logger.warning(
                "The files in %s were removed: the hub starts anew", self.place.directory
            )
            self._is_stopping = True

    # Peers.

    def _accept(self) -> None:
        assert self._listener is not None, "it is registered with the selector"
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Too many open files, most likely.  Not asked again before the next tick, since
                # the connection goes on waiting and would wake this thread without end.
                logger.warning("The hub cannot take a connection: %s", error)
                self._selector.unregister(self._listener)
                self._accept_paused = True
                return
            connection.setblocking(False)
            peer = HubPeer(connection, self.longest, self._room, self._clock.monotonic())
            reason = self._reason_against(connection)
            if reason:
                self.board.counters["turned_away"] += 1
                logger.warning("The hub turns a process away: %s", reason)
                peer.say("turned_away", reason)
                peer.flush()
                connection.close()
                continue
            self._peers.add(peer)
            self._watch(peer)

    def _reason_against(self, connection: socket.socket) -> str:
        try:
            uid = place.peer_uid(connection)
        except OSError as error:
            return f"its user cannot be found out ({error})"
        if uid != os.geteuid():
            return f"it runs as user {uid}, the hub as {os.geteuid()}"
        if len(self._peers) >= self.options.max_peers:
            return f"max_peers={self.options.max_peers} processes are here already"
        return ""

    def _read(self, peer: HubPeer) -> None:
        try:
            self.board.take(peer, peer.read())
        except BlockingIOError:
            return
        except OSError:
            peer.is_lost = True
            self.board.dirty[peer] = None
        except HubProtocolError as error:
            self.board.counters["dropped_malformed"] += 1
            peer.flush()
            self._drop(peer, str(error))

    def _drop(self, peer: HubPeer, reason: str) -> None:
        logger.warning("The hub drops the connection of process %s: %s", peer.pid, reason)
        self._forget(peer)

    def _forget(self, peer: HubPeer) -> None:
        if peer not in self._peers:
            return
        self._peers.remove(peer)
        self.board.forget(peer)
        if peer.mask:
            self._selector.unregister(peer.socket)
            peer.mask = 0
        peer.socket.close()

    # Writing, in the order that `peer` says.

    def _flush(self) -> None:
        dirty = self.board.dirty
        while dirty:
            peers = list(dirty)
            dirty.clear()
            owing = [peer for peer in peers if peer.done > peer.answered]
            for peer in peers:
                # What is for the first leaves with its answers: that for the others has left.
                if peer not in owing[:1]:
                    peer.flush()
            for peer in owing:
                peer.write_answers()
                peer.flush()
            for peer in peers:
                if peer.leased and not peer.unsent:
                    peer.write_leased()
                    peer.flush()
            for peer in peers:
                if peer.is_lost:
                    # May give back to queues, whose readers are dirty then.
                    self._forget(peer)
                else:
                    self._watch(peer)

    def _watch(self, peer: HubPeer) -> None:
        """Watch for what is of use now: who does not read is not read from either."""
        mask, connection = 0, peer.socket
        if peer.unsent <= self.options.peer_buffer and not self._is_stopping:
            mask |= _READ
        if peer.unsent:
            mask |= _WRITE
        if mask == peer.mask:
            return
        if not mask:
            self._selector.unregister(connection)
        elif not peer.mask:
            self._selector.register(connection, mask, peer)
        else:
            self._selector.modify(connection, mask, peer)
        peer.mask = mask

    # The first moments.

    def _on_ready(self, peer: HubPeer) -> None:
        self._awaited.discard(peer.node)
        if self._is_settled:
            self._welcome(peer, kept=False)

    def _settle(self, now: float) -> None:
        """Let those speak who have come, once all have, or the wait was long enough."""
        if self._awaited and now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            # Those who died with the last hub let go of their file a moment after their socket.
            self._awaited &= self.place.living_nodes()
        if self._awaited and now < self._settle_until:
            return
        self._is_settled = True
        for peer in self._peers:
            if peer.is_ready:
                kept = peer.kept and bool(self._predecessor)
                self._welcome(peer, kept and peer.epoch == self._predecessor)
        self._flush()

    def _welcome(self, peer: HubPeer, kept: bool) -> None:
        peer.say("welcome", os.getpid(), self.board.epoch, kept, self.longest)
        self.board.dirty[peer] = None

    # The end.

    def _say_farewell(self) -> None:
        deadline = self._clock.monotonic() + _FAREWELL_SECONDS
        self._stop_listening()
        self.board.dirty.update(dict.fromkeys(self._peers))
        while True:
            # From now on `_watch` lets nobody be read from.
            self._flush()
            waiting = {peer for peer in self._peers if peer.unsent}
            left = deadline - self._clock.monotonic()
            if not waiting or left <= 0:
                break
            for key, _ in self._selector.select(left):
                if key.data in waiting:
                    self.board.dirty[key.data] = None
        for peer in self._peers:
            self.board.return_unwritten(peer)
        self._leave_behind()
        for peer in self._peers - waiting:
            peer.say("goodbye")
            peer.flush()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(KeyError):
                # Paused, it is not registered.
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _leave_behind(self) -> None:
        if not self._lock.is_current():
            return
        if not self._is_settled:
            # Nobody has spoken here: for who comes next, the last hub is the one before.
            self.board.epoch = self._predecessor
        try:
            handover.leave(self.board, self.place.left)
        except OSError as error:
            logger.error("The hub's unread messages are lost: %s", error)

    def _close(self) -> None:
        for peer in self._peers:
            peer.socket.close()
        self._peers.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._selector.close()
        self._wakeup_w.close()
        self._wakeup_r.close()
        self._lock.release()
