"""An application served by our server in a process of its own, for tests over real sockets.

The child is told to stop and joined by whoever started it.  If that one dies without doing so, the
child notices and stops by itself; if it merely forgets, the interpreter's exit ends the child.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

import django
from asgiref.sync import SyncToAsync
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE

from channels.kit.limits import Timeouts
from channels.kit.process_exit import process_exit
from channels.kit.types import Application
from channels.layers.isolation import join_test_run
from channels.server import ServerOptions
from channels.server.listening import ListeningServer, tcp_endpoint

#: For requests and sockets that a test left open, when the server is told to stop.
GRACE_SECONDS = 0.5
#: For threads of the child once its server has stopped.
EXIT_SECONDS = 1.0
#: How often a waiting parent looks whether its child still lives.
LOOK_SECONDS = 0.05


class RunsAndStops(Protocol):
    """What a process needs of a server."""

    def run(self) -> Any:
        """Serve in this thread, until SIGTERM or `request_stop`."""

    def request_stop(self) -> Any:
        """End `run`; called from another thread."""


class ServerProcess(multiprocessing.Process):
    """One server in one child; both start methods, fork and spawn, work.

    Args:
        get_application: Called in the child; picklable if the start method is spawn.
        kwargs: Options for the server, by name.
        setup: Called in the child before anything else; `teardown` after the server has stopped.
        port: None takes a free one; `self.port.value` tells it once `self.ready` is set.
    """

    #: How long a child that was told to stop has, before it is killed.
    stop_timeout = 10.0

    def __init__(
        self,
        host: str,
        get_application: Callable[[], Application],
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(name="channels-server")
        self.host = host
        self.get_application = get_application
        self.kwargs = dict(kwargs or {})
        self.setup = setup
        self.teardown = teardown
        self.wanted_port = port or 0
        self.port = multiprocessing.Value("i", -1)
        self.ready = multiprocessing.Event()
        #: (exception, its traceback as text) of a child that failed.
        self.errors: multiprocessing.Queue[tuple[BaseException, str]] = multiprocessing.Queue()

    def __reduce__(self) -> tuple[Any, ...]:
        # Read by a spawned child.  The class and what it holds may come from a module of tests,
        # which can be imported only where Django is set up.
        needs_django = apps.ready and ENVIRONMENT_VARIABLE in os.environ
        return _restore, (needs_django, bytes(ForkingPickler.dumps((type(self), vars(self)))))

    # In the child.

    def run(self) -> None:
        """Serve; an error goes into `errors` and ends the child with status 1."""
        try:
            _forget_inherited_threads()
            if self.setup is not None:
                self.setup()
            server = self.make_server(self.get_application(), self._tell)
            _stop_with_parent(server)
            try:
                server.run()
            finally:
                if self.teardown is not None:
                    self.teardown()
                # Threads of sync code that still run must not hold the tests.
                process_exit.end_within(EXIT_SECONDS)
        except BaseException as error:
            self.errors.put((_portable(error), traceback.format_exc()))
            raise SystemExit(1) from None

    def make_server(self, application: Application, ready: Callable[[int], None]) -> RunsAndStops:
        """The server to run; it calls `ready` with its port once it listens."""
        return ListeningServer(
            application,
            [tcp_endpoint(self.bound_host, self.wanted_port)],
            ServerOptions(**{"timeouts": Timeouts(shutdown_timeout=GRACE_SECONDS), **self.kwargs}),
            lambda addresses: ready(int(addresses[0][1] or 0)),
        )

    @property
    def bound_host(self) -> str:
        """The address to bind: the two of "localhost" would get two different free ports."""
        return "127.0.0.1" if self.host == "localhost" else self.host

    def _tell(self, port: int) -> None:
        self.port.value = port
        self.ready.set()

    # In the parent.

    def start(self) -> None:
        """Start the child; `wait_until_ready` tells when it serves.

        Raises:
            RuntimeError: In a process that may have no children, such as a parallel test worker.
        """
        if multiprocessing.current_process().daemon:
            raise RuntimeError(
                "A live server cannot be started from a worker of a parallel test run, which may "
                "have no child processes: run these tests with --parallel 1."
            )
        join_test_run()
        super().start()
        atexit.register(self.stop)

    def wait_until_ready(self, timeout: float | None = 30.0) -> int:
        """The port, once the child listens.

        Raises:
            RuntimeError: With the child's traceback, if it failed.
            TimeoutError: If it did neither within `timeout` seconds; it is stopped then.
        """
        left = timeout
        while not self.ready.wait(LOOK_SECONDS):
            self.raise_error()
            if left is not None and (left := left - LOOK_SECONDS) <= 0:
                self.stop()
                raise TimeoutError(f"The server did not listen within {timeout} seconds.")
        return int(self.port.value)

    def raise_error(self) -> None:
        """Return if the child lives.

        Raises:
            RuntimeError: If it has ended, with its traceback if it failed.
        """
        if self.is_alive():
            return
        try:
            # The child's feeder thread wrote it before the child could end.
            error, text = self.errors.get(timeout=1)
        except queue.Empty:
            raise RuntimeError(f"The server ended with status {self.exitcode}.") from None
        raise RuntimeError(f"The server failed:\n\n{text}") from error

    def stop(self) -> None:
        """Stop the child, as SIGTERM does, and wait for its end; kill it after `stop_timeout`."""
        atexit.unregister(self.stop)
        if self.pid is None:
            return
        if self.is_alive():
            self.terminate()
            self.join(self.stop_timeout)
        if self.is_alive():
            self.kill()
        self.join()


def _restore(needs_django: bool, pickled: bytes) -> ServerProcess:
    if needs_django and not apps.ready:
        django.setup()
    kind, held = pickle.loads(pickled)
    process: ServerProcess = kind.__new__(kind)
    vars(process).update(held)
    return process


def _forget_inherited_threads() -> None:
    # A forked child has its parent's executors without their threads: work given to them would
    # wait for ever.
    SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)


def _stop_with_parent(server: RunsAndStops) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        server.request_stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _portable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
