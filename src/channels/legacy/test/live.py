"""A test case against a live interface server and its workers, each a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

from channels import DEFAULT_CHANNEL_LAYER
from channels.kit.types import Application
from channels.legacy.asgi import channel_layers
from channels.legacy.interface.application import InterfaceServer
from channels.legacy.signals import worker_process_ready
from channels.legacy.worker import WorkerGroup
from channels.testing.live import ChannelsLiveServerTestCase, RememberedRows, StaticWrapper
from channels.testing.process import RunsAndStops, ServerProcess


class WorkerProcess(ServerProcess):
    """Workers in one child; what `get_application` makes are the workers."""

    def make_server(
        self,
        application: Any,
        ready: Callable[[int], None],
    ) -> RunsAndStops:
        """The workers; they are ready once they read their channels."""
        worker_process_ready.connect(lambda **_: ready(0), weak=False)
        workers: RunsAndStops = application
        return workers


class ChannelLiveServerTestCase(ChannelsLiveServerTestCase):
    """Serves the default channel layer, with workers for its routing, while the class's tests run.

    Needs a database and a layer that several processes share.

    Attributes:
        worker_threads: How many messages are handled at once.
    """

    WorkerProcess: ClassVar[type[WorkerProcess]] = WorkerProcess
    worker_threads = 1

    _workers: ClassVar[ServerProcess | None] = None

    @classmethod
    def setUpClass(cls) -> None:
        if channel_layers[DEFAULT_CHANNEL_LAYER].local_only():
            raise ImproperlyConfigured(
                f"{cls.__name__} runs the server and the workers in processes of their own, which "
                "an in-memory channel layer does not reach. Set another BACKEND, for example "
                '"channels.layers.LocalChannelLayer".'
            )
        super().setUpClass()

    @classmethod
    def _start(cls, setup: Callable[[], object]) -> None:
        super()._start(setup)
        make_workers: Any = partial(_make_workers, cls.worker_threads, cls._tests_begun)
        workers = cls.WorkerProcess(cls.host, make_workers, setup=setup)
        workers.start()
        cls._workers = workers
        cls.addClassCleanup(cls._stop_workers)
        workers.wait_until_ready()

    @classmethod
    def _stop_workers(cls) -> None:
        workers, cls._workers = cls._workers, None
        if workers is not None:
            workers.stop()

    @classmethod
    def _get_application(cls) -> Callable[[], Application]:
        return partial(_make_interface, cls._static_wrapper())

    @classmethod
    def _pre_setup(cls) -> None:
        if cls._workers is not None:
            cls._workers.raise_error()
        super()._pre_setup()
        # What former tests have left in the queues.
        channel_layers[DEFAULT_CHANNEL_LAYER].flush()


def _make_interface(static_wrapper: StaticWrapper | None) -> Application:
    interface = InterfaceServer(channel_layers[DEFAULT_CHANNEL_LAYER])
    return interface if static_wrapper is None else static_wrapper(interface)


def _make_workers(threads: int, tests_begun: Any) -> WorkerGroup:
    layer = channel_layers[DEFAULT_CHANNEL_LAYER]
    layer.router.check_default()
    rows = RememberedRows(tests_begun)
    return WorkerGroup(layer, lambda *_: rows.forget(), n_threads=threads)
