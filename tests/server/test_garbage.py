from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from channels.kit.types import Receive, Scope, Send
from channels.server import Server, ServerOptions
from channels.server.garbage import seldom_collected


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_the_collector_runs_less_often_meanwhile() -> None:
    before = gc.get_threshold()
    with seldom_collected(12_345):
        assert gc.get_threshold()[0] == 12_345
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_all_is_restored_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyboardInterrupt), seldom_collected(12_345):
        raise KeyboardInterrupt
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_none_leaves_it_alone() -> None:
    # Others in this process may have frozen something.
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with seldom_collected(None):
        assert gc.get_threshold() == before
        assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize("owns_process", [True, False])
def test_a_server_sets_it_where_the_process_is_its_own(owns_process: bool) -> None:
    seen: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            seen.append(gc.get_threshold()[0])
            await send({"type": f"{event['type']}.complete"})
            server.request_stop()
            if event["type"] == "lifespan.shutdown":
                return

    before = gc.get_threshold()[0]
    server = Server(application, [], ServerOptions(collect_after_objects=12_345))
    server.run(install_signals=owns_process)
    assert seen == [12_345 if owns_process else before] * 2
    assert gc.get_threshold()[0] == before
