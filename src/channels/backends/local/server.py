"""The hub: a thread of one of the processes, whichever got the lock.

A thread of its own, and a plain selector on it: a loop that user code blocks for a second would
stand still for every process of the machine, while a thread goes on as soon as that code waits or
the interpreter switches (5 ms).  All sockets, timers and tables below belong to this thread; others
call `start`, `stop`, `abandon` and `statistics` only.

Close order: no new peers, nothing read any more; what is due is written; what is unread is left to
the next hub; each peer whose stream is complete gets GOAWAY; sockets; lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from channels.backends.local import frames, handover, place
from channels.backends.local.exit import no_longer_serving, serving
from channels.backends.local.options import HubOptions
from channels.backends.local.peer import READ_OCTETS, HubPeer
from channels.backends.local.place import Lock, Place
from channels.backends.local.settling import LOOK_SECONDS, Settling
from channels.backends.local.switchboard import Switchboard
from channels.kit.clock import Clock, SystemClock
from channels.kit.greenlets import start_thread, wait_for

logger = logging.getLogger("channels.layers")

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
#: Until a connection has introduced itself.
_HELLO_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 1.0
#: How often the lock's file is shown to be in use.
_TOUCH_SECONDS: Final = 3600.0
#: For the last writes at the end.
_FAREWELL_SECONDS: Final = 0.4


class HubServer:
    """One hub.

    Args:
        lock: The hub's, held; it is released at the end.
        longest: Octets of the longest frame that is taken.
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
        self._peers: dict[HubPeer, frames.Splitter] = {}
        # Made once: `recv` would take 45 µs to make it each time.
        self._room = memoryview(bytearray(READ_OCTETS))
        #: Done when its thread has ended; None before that has started.
        self._ended: Future[None] | None = None
        self._is_stopping = False
        self._accept_paused = False
        self._on_stopped: Callable[[], None] = lambda: None
        self._tick_at = self._touch_at = self._clock.monotonic()
        self._settling: Settling | None = None
        self._predecessor = b""

    # From other threads.

    def start(self) -> None:
        """Begin to serve; returns before it does.

        Raises:
            RuntimeError: If there can be no thread any more.
        """
        with serving(self):
            self._lock.write(str(os.getpid()))
            self._ended = start_thread(self._run, "channels-hub")

    @property
    def is_alive(self) -> bool:
        return self._ended is not None and not self._ended.done()

    def request_stop(self, on_stopped: Callable[[], None] = lambda: None) -> None:
        """Have it hand over and end; `on_stopped` is called on its thread when the lock is free."""
        self._on_stopped = on_stopped
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._wakeup_w.send(b"x")

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """The same, and wait for it."""
        self.request_stop()
        if self._ended is not None:
            with contextlib.suppress(TimeoutError):
                wait_for(self._ended, timeout_seconds)

    def abandon(self) -> None:
        """In a forked child: the thread is the parent's; let go of copies of its descriptors."""
        no_longer_serving(self)
        self._close()

    def statistics(self) -> Mapping[str, int]:
        engine = self.board.engine
        return {
            "hub_peers": len(self.board.nodes),
            "hub_queues": len(engine.queues),
            "hub_queued_octets": engine.octets,
            "hub_expired": engine.expired,
            **{f"hub_{name}": count for name, count in self.board.holder.statistics().items()},
            **{f"hub_{name}": count for name, count in dict(self.board.counters).items()},
        }

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
            no_longer_serving(self)
            self._on_stopped()

    def _open(self) -> None:
        self._predecessor = handover.take_over(self.board, self.place.left)
        self._settling = Settling(self.place, self._clock.monotonic())
        self._listener = place.listen(self.place)
        self._selector.register(self._listener, _READ, None)
        self._wakeup_r.setblocking(False)
        self._wakeup_w.setblocking(False)
        self._selector.register(self._wakeup_r, _READ, None)

    def _pause(self) -> float:
        if self._settling is not None:
            return LOOK_SECONDS
        due = self.board.holder.tick()
        if due is None:
            wait = _TICK_SECONDS
        else:
            wait = min(_TICK_SECONDS, max(0.0, due - self._clock.monotonic()))
        # What was due just now is for someone.
        return 0.0 if self.board.dirty else wait

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
        if self._settling is not None and self._settling.is_over(now):
            self._begin()
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
            reason = self._reason_against(connection)
            if reason:
                self.board.counters["turned_away"] += 1
                logger.warning("The hub turns a process away: %s", reason)
                with contextlib.suppress(OSError):
                    connection.send(frames.frame(frames.TURNED_AWAY, b"", reason.encode()))
                connection.close()
                continue
            peer = HubPeer(connection, self.board.dirty, self._clock.monotonic())
            self._peers[peer] = frames.Splitter(self.longest)
            peer.mask = _READ
            self._selector.register(connection, _READ, peer)

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
            count = peer.connection.recv_into(self._room)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        data = bytes(self._room[:count])
        if not data:
            peer.is_lost = True
            self.board.dirty[peer] = None
            return
        try:
            self.board.take(peer, *self._peers[peer].split(data))
        except (ValueError, struct.error) as error:
            self.board.counters["dropped_malformed"] += 1
            peer.flush()
            self._drop(peer, str(error))

    def _drop(self, peer: HubPeer, reason: str) -> None:
        logger.warning("The hub drops the connection of process %s: %s", peer.pid, reason)
        peer.is_lost = True
        self._forget(peer)

    def _forget(self, peer: HubPeer) -> None:
        if self._peers.pop(peer, None) is None:
            return
        self.board.forget(peer)
        if peer.mask:
            self._selector.unregister(peer.connection)
            peer.mask = 0
        peer.connection.close()

    # Writing, in the order that `peer` says.

    def _flush(self) -> None:
        dirty = self.board.dirty
        while dirty:
            peers = list(dirty)
            dirty.clear()
            for peer in peers:
                peer.flush()
            for peer in peers:
                if peer.owes_answers:
                    peer.write_answers()
                    peer.flush()
            for peer in peers:
                if peer.leased and not peer.out_octets:
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
        mask = 0
        if peer.out_octets <= self.options.peer_buffer and not self._is_stopping:
            mask |= _READ
        if peer.out_octets:
            mask |= _WRITE
        if mask == peer.mask:
            return
        if not mask:
            self._selector.unregister(peer.connection)
        elif not peer.mask:
            self._selector.register(peer.connection, mask, peer)
        else:
            self._selector.modify(peer.connection, mask, peer)
        peer.mask = mask

    # The first moments.

    def _on_ready(self, peer: HubPeer) -> None:
        if self._settling is None:
            self._welcome(peer, kept=False)
        else:
            self._settling.note_ready(peer.node.decode())

    def _begin(self) -> None:
        """Let those speak who have come."""
        self._settling = None
        for peer in self._peers:
            if peer.is_ready and not peer.is_welcome:
                kept = peer.kept and bool(self._predecessor)
                self._welcome(peer, kept and peer.last_epoch == self._predecessor)
        self._flush()

    def _welcome(self, peer: HubPeer, kept: bool) -> None:
        peer.is_welcome = True
        body = frames.WELCOME_BODY.pack(os.getpid(), self.board.epoch, kept, self.longest)
        peer.write(frames.frame(frames.WELCOME, b"", body))
        self.board.dirty[peer] = None

    # The end.

    def _say_farewell(self) -> None:
        deadline = self._clock.monotonic() + _FAREWELL_SECONDS
        self._stop_listening()
        self.board.dirty.update(dict.fromkeys(self._peers))
        while True:
            # From now on `_watch` lets nobody be read from.
            self._flush()
            waiting = {peer for peer in self._peers if peer.out_octets}
            left = deadline - self._clock.monotonic()
            if not waiting or left <= 0:
                break
            for key, _ in self._selector.select(left):
                if key.data in waiting:
                    self.board.dirty[key.data] = None
        for peer in self._peers:
            self.board.return_unwritten(peer)
        self._leave_behind()
        for peer in self._peers.keys() - waiting:
            peer.write(frames.frame(frames.GOAWAY))
            peer.flush()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            if not self._accept_paused:
                self._selector.unregister(self._listener)
            self._accept_paused = False
            self._listener.close()
            self._listener = None

    def _leave_behind(self) -> None:
        if not self._lock.is_current():
            return
        if self._settling is not None:
            # Nobody has spoken here: for who comes next, the last hub is the one before.
            self.board.epoch = self._predecessor
        try:
            count = handover.leave(self.board, self.place.left)
        except OSError as error:
            logger.error("The hub's unread messages are lost: %s", error)
        else:
            logger.debug("The hub leaves %s unread messages to the next one", count)

    def _close(self) -> None:
        for peer in self._peers:
            peer.connection.close()
        self._peers.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._selector.close()
        self._wakeup_w.close()
        self._wakeup_r.close()
        self._lock.release()
