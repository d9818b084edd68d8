"""The worker's end: it tells its supervisor how it is, and does what it is told.

A thread reads the supervisor's lines, so that a worker whose loop is held, or that still imports
its application, stops too when its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import faulthandler
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Final

from channels.exceptions import InvalidOption
from channels.layers.registry import channel_layers
from channels.server import Endpoint, Server
from channels.server.counts import counts
from channels.server.log_writer import share_outputs
from channels.supervisor.control import (
    ASSIGNMENT,
    BEAT,
    DRAIN,
    READY,
    RECYCLE,
    Assignment,
    ControlLines,
)
from channels.supervisor.memory import resident_bytes
from channels.supervisor.options import Workers
from channels.supervisor.shared_counts import shared_counts

#: The longest pause between two beats, and between two looks at the worker's own bounds.
_LOOK_SECONDS: Final = 1.0
#: Beats within the supervisor's patience.
_BEATS: Final = 4


def join_supervisor(environ: MutableMapping[str, str], options: Workers) -> WorkerEnd | None:
    """The worker's end, if this process was started as a worker; what it starts in turn is none."""
    text = environ.pop(ASSIGNMENT, None)
    return None if text is None else WorkerEnd(Assignment.from_text(text), options)


class WorkerEnd:
    """A worker's connection to its supervisor, for the life of the process."""

    def __init__(self, assignment: Assignment, options: Workers) -> None:
        self.number = assignment.number
        self._sockets = assignment.sockets
        self._control = ControlLines(socket.socket(fileno=assignment.control))
        self._options = options
        heartbeat = options.worker_heartbeat
        self._pause = min(_LOOK_SECONDS, heartbeat / _BEATS if heartbeat else _LOOK_SECONDS)
        self._most_requests = _spread(options.max_requests, options.recycle_spread)
        self._most_memory = _spread(options.max_memory, options.recycle_spread)
        self._wants_end = False
        self._server: Server | None = None
        share_outputs(assignment.log_lock)
        shared_counts.join(assignment.counts)
        if sys.stderr is not None:
            # A worker that hangs is ended by SIGABRT, and shows where each of its threads is.
            faulthandler.enable(sys.stderr)
        threading.Thread(target=self._obey, name="channels-supervisor", daemon=True).start()

    def endpoints(self, listening: Sequence[Endpoint]) -> Iterator[Endpoint]:
        """The places to listen at, each as the sockets that the supervisor holds for it."""
        for endpoint, numbers in zip(listening, self._sockets, strict=True):
            for number in numbers:
                yield dataclasses.replace(endpoint, kind="fd", number=number)

    def check_layers(self) -> None:
        """Refuse layers that other workers do not see.

        Raises:
            InvalidOption: With what to take instead.
        """
        for alias in channel_layers.of_one_process():
            raise InvalidOption(
                f"CHANNEL_LAYERS[{alias!r}] is an in-memory layer, which other processes do not "
                f"see, and --workers asks for {self._options.workers}: a message would reach the "
                'members of its group in one of them only.  Take "channels.layers.'
                'LocalChannelLayer", which spans the processes of a machine and needs no broker, '
                "or --workers 1."
            )

    def follow(self, server: Server) -> None:
        """Let the supervisor's lines reach `server`."""
        self._server = server

    def on_listening(self, _addresses: object) -> None:
        """Tell that the server listens, and from now on that its loop runs; on that loop."""
        self._control.send(READY)
        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._control.send(BEAT)
        shared_counts.look()
        if not self._wants_end and (reason := self._reached()):
            self._wants_end = True
            self._control.send(RECYCLE, reason)
        loop.call_later(self._pause, self._beat, loop)

    def _reached(self) -> str:
        """The bound that this worker has reached, in words; empty for none."""
        if self._most_requests is not None:
            requests = counts.responses.total() + counts.websockets_opened
            if requests >= self._most_requests:
                return f"it has served {requests} requests"
        if self._most_memory is not None:
            size = resident_bytes()
            if size > self._most_memory:
                return f"it takes {size} bytes of memory"
        return ""

    def _obey(self) -> None:
        while (lines := self._control.receive()) is not None:
            for word, text in lines:
                if word == DRAIN and self._server is not None:
                    self._server.request_drain(float(text))
        os.kill(os.getpid(), signal.SIGTERM)


def _spread(bound: int | None, part: float) -> float | None:
    return None if bound is None else bound * (1 - part * random.random())
