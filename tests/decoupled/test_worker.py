"""The worker of connections as a process."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from channels.decoupled import worker
from channels.kit.types import Receive, Scope, Send
from channels.layers import InMemoryChannelLayer
from channels.server import ServerOptions


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application."""


def test_garbage_is_collected_as_in_a_server_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(_: Any, work: Coroutine[Any, Any, None], stop_seconds: float) -> None:
        work.close()
        seen.append(gc.get_threshold()[0])

    monkeypatch.setattr(worker, "run_until_stopped", run)
    before = gc.get_threshold()
    worker.ConnectionWorker(nothing, InMemoryChannelLayer()).run()
    assert seen == [ServerOptions().collect_after_objects]
    assert gc.get_threshold() == before
