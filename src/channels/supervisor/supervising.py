"""Several workers on the same listening sockets, and the process that looks after them.

The supervisor imports nothing of the application, so neither its errors nor its memory are the
supervisor's.  It holds the listening sockets: while a worker is replaced, and even while there is
none, connections wait in their queue and are not refused.

    SIGTERM, SIGINT   all workers end in order; a second one: at once
    SIGHUP            the workers are replaced one after the other, by ones with the code of now
    SIGCHLD           ended processes are awaited; as process 1 of a container, everybody's

Stop order: the sockets are closed; each worker closes its own and ends in order; one that does not
end in its time is killed; a Unix socket's file goes.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from channels.kit.process_exit import LAST_SECONDS, process_exit
from channels.kit.types import Address
from channels.server.endpoints import Endpoint
from channels.server.listeners import SocketFile, address_of, bind
from channels.server.log_writer import share_outputs
from channels.server.notify import notify
from channels.supervisor.control import BEAT, READY, RECYCLE
from channels.supervisor.options import Workers
from channels.supervisor.pool import WorkerPool
from channels.supervisor.shared_counts import CountsFolder
from channels.supervisor.worker_process import Launch, SupervisedWorker

logger: Final = logging.getLogger("channels.supervisor")

#: How often the supervisor looks after its workers while nothing happens.
_LOOK_SECONDS: Final = 0.2
#: A turn that took so long: the supervisor was stopped, or its machine slept.
_LATE_SECONDS: Final = 1.0
#: From the end of the last worker, killed or not, to the supervisor's own.
_OWN_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Supervised:
    """What is run in several processes."""

    #: Of one worker.
    command: Sequence[str]
    endpoints: Sequence[Endpoint]
    options: Workers
    #: The longest that a worker takes to end, from SIGTERM on.
    stop_seconds: float


def run_workers(supervised: Supervised, on_started: Callable[[Sequence[Address]], object]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Args:
        on_started: Called once every worker serves, with the addresses that they listen on.

    Raises:
        OSError: If an endpoint cannot be had.
        InvalidOption: If systemd passed no such descriptor.
    """
    with ExitStack() as stack:
        sockets: list[list[socket.socket]] = []
        files: list[SocketFile] = []
        stack.callback(_close_sockets, sockets, files)
        for endpoint in supervised.endpoints:
            sockets.append(bind(endpoint))
            if endpoint.kind == "unix":
                files.append(SocketFile(endpoint.path))
        lock = stack.enter_context(tempfile.TemporaryFile())
        share_outputs(lock.fileno())
        stack.callback(share_outputs, None)
        counts = CountsFolder()
        stack.callback(counts.remove)
        launch = Launch(supervised.command, sockets, lock.fileno(), counts.path)
        pool = WorkerPool(launch, supervised.options, supervised.stop_seconds)
        addresses = [address_of(sock) for each in sockets for sock in each]
        supervisor = WorkerSupervisor(
            pool, counts, lambda: on_started(addresses), lambda: _close_sockets(sockets, files)
        )
        stack.enter_context(
            process_exit.serving(supervisor, supervised.stop_seconds + _OWN_SECONDS + LAST_SECONDS)
        )
        return supervisor.run()


def _close_sockets(sockets: Sequence[Sequence[socket.socket]], files: list[SocketFile]) -> None:
    for each in sockets:
        for sock in each:
            sock.close()
    while files:
        files.pop().remove()


class WorkerSupervisor:
    """Waits for signals and for workers, and lets the pool act on them."""

    def __init__(
        self,
        pool: WorkerPool,
        counts: CountsFolder,
        on_started: Callable[[], object],
        on_stop: Callable[[], object],
    ) -> None:
        self._pool = pool
        self._counts = counts
        self._on_started = on_started
        self._on_stop = on_stop
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, SupervisedWorker] = {}
        self._has_started = self._has_stopped = False
        self._is_renewing = False
        # Set by signals, between any two steps.
        self._stop_asked = self._hurry_asked = self._renewal_asked = False

    def request_stop(self) -> None:
        """End all workers in order, then return from `run`."""
        self._stop_asked = True

    def hurry(self) -> None:
        """The same, without waiting for anything."""
        self._hurry_asked = True

    def run(self) -> int:
        """Start the workers and look after them until all have ended; the exit status."""
        try:
            with self._signals() as wakeup, self._selector:
                self._selector.register(wakeup, selectors.EVENT_READ, None)
                before = time.monotonic()
                while not self._pool.has_ended:
                    self._turn(wakeup, before)
                    before = time.monotonic()
        finally:
            # Only after an error: the workers must not outlive it.
            for worker in self._pool.workers():
                worker.kill()
        return self._pool.status

    def _turn(self, wakeup: int, before: float) -> None:
        pool = self._pool
        pool.look(time.monotonic())
        for worker in pool.workers():
            if worker.pid not in self._workers:
                self._workers[worker.pid] = worker
                self._selector.register(worker.control.socket, selectors.EVENT_READ, worker)
        ready = self._selector.select(_LOOK_SECONDS)
        if time.monotonic() - before >= _LATE_SECONDS:
            pool.was_late(time.monotonic())
        for key, _ in ready:
            if key.data is None:
                _drain_pipe(wakeup)
            else:
                self._listen_to(key.data)
        self._reap()
        self._obey_signals()
        self._report()

    def _listen_to(self, worker: SupervisedWorker) -> None:
        lines = worker.control.receive()
        if lines is None:
            self._selector.unregister(worker.control.socket)
            return
        for word, text in lines:
            worker.heard_at = time.monotonic()
            if word == READY:
                self._pool.on_ready(worker, worker.heard_at)
            elif word == RECYCLE:
                worker.recycle_reason = text
            elif word != BEAT:
                logger.warning("%s said %r: expected another word.", worker, word)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = self._workers.pop(pid, None)
            if worker is None:  # an orphan, which process 1 inherits
                continue
            if worker.control.socket in self._selector.get_map():
                self._listen_to(worker)
            if worker.control.socket in self._selector.get_map():
                self._selector.unregister(worker.control.socket)
            self._counts.keep(worker.counts.name)
            self._pool.on_end(worker, os.waitstatus_to_exitcode(status), time.monotonic())

    def _obey_signals(self) -> None:
        now = time.monotonic()
        if self._renewal_asked:
            self._renewal_asked = False
            if self._pool.renew():
                logger.info("SIGHUP: replacing the workers one after the other.")
                self._is_renewing = True
                notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            else:
                logger.warning("SIGHUP: not all workers have started; nothing is replaced.")
        if self._stop_asked and not self._pool.is_stopping:
            self._pool.stop(now)
        if self._hurry_asked:
            self._hurry_asked = False
            self._pool.hurry(now)

    def _report(self) -> None:
        """Tell once of what has come about."""
        pool = self._pool
        if pool.has_started and not self._has_started:
            self._has_started = True
            self._on_started()
            notify("READY=1")
        if self._is_renewing and not pool.is_rolling:
            self._is_renewing = False
            notify("READY=1")
        if pool.is_stopping and not self._has_stopped:
            self._has_stopped = True
            logger.info("Stopping %d workers.", sum(1 for _ in pool.workers()))
            notify("STOPPING=1")
            self._on_stop()

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """A pipe that can be read after each signal; SIGHUP and SIGCHLD are taken meanwhile."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGHUP, self._on_hangup),
                # Without a handler it would not be written to the pipe.
                (signal.SIGCHLD, lambda *_: None),
            )
        }
        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former)
            os.close(reader)
            os.close(writer)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._renewal_asked = True


def _drain_pipe(reader: int) -> None:
    try:
        while os.read(reader, 4096):
            pass
    except BlockingIOError:
        return
