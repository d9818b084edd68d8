"""Signals of a worker's life; those of its consumers are in `channels.signals`."""

from __future__ import annotations

from typing import Final

from django.dispatch import Signal

#: Sent by a worker, as `sender`, once it reads its channels.
worker_ready: Final = Signal()
#: The same, once in a process.
worker_process_ready: Final = Signal()
