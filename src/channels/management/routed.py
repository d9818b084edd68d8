"""What `runserver` and `runworker` do where a layer has ROUTING: workers of Channels 1."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError

from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.legacy.staticfiles import StaticFilesConsumer
from channels.legacy.worker import WorkerGroup
from channels.settings import has_routing

logger = logging.getLogger("django.channels.worker")

#: Consumers that run at once inside `runserver`.
RUNSERVER_THREADS: Final = 4
#: Time for a whole response, unless told otherwise.
RUNSERVER_HTTP_TIMEOUT: Final = 60.0


def routed_layer(alias: str) -> ChannelLayerWrapper | None:
    """The layer of an alias if it has ROUTING, else None.

    No other is made: what is wrong with its settings is for the system checks to tell.
    """
    return channel_layers[alias] if has_routing(alias) else None


def require_several_processes(layer: ChannelLayerWrapper) -> None:
    """Raise CommandError if no other process sees what is sent to the layer."""
    if layer.local_only():
        raise CommandError(
            "You cannot span multiple processes with the in-memory layer. Configure one that "
            "does, such as channels.layers.LocalChannelLayer, or run `manage.py runserver`, which "
            "has its workers inside."
        )


def make_workers(layer: ChannelLayerWrapper, threads: int, **more: Any) -> WorkerGroup:
    """Workers for what the layer's routing has consumers for; in DEBUG for static files too.

    Args:
        more: Further arguments of `WorkerGroup`.
    """
    is_static = settings.DEBUG and apps.is_installed("django.contrib.staticfiles")
    layer.router.check_default(http_consumer=StaticFilesConsumer() if is_static else None)
    return WorkerGroup(layer, n_threads=threads, **more)


class InnerWorkers:
    """Workers on a thread of this process, from `with` to its end.

    Args:
        stop_seconds: How long running consumers may hold up the end.
    """

    def __init__(self, layer: ChannelLayerWrapper, threads: int, stop_seconds: float) -> None:
        self._workers = make_workers(layer, threads, signal_handlers=False)
        self._stop_seconds = stop_seconds
        # A daemon: a consumer that never returns must not hold the process.
        self._thread = threading.Thread(target=self._run, name="channels-workers", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._workers.request_stop()
        self._thread.join(self._stop_seconds)

    def _run(self) -> None:
        try:
            self._workers.run()
        except Exception:
            logger.exception("The workers have ended; nothing is handled any more.")
