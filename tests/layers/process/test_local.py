"""Channels of a process, registered and filled in several threads at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from channels.fanout.delivery import Event
from channels.kit.clock import SystemClock
from channels.layers import InMemoryChannelLayer
from channels.layers.process.local import LocalChannels


@pytest.fixture
def hurried_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_an_inbox_that_is_tidied_away_takes_no_message_with_it(hurried_threads: None) -> None:
    """The reader's thread forgets an empty inbox while the owner loop's has a message for it."""
    local = LocalChannels(
        InMemoryChannelLayer(capacity=10**6),
        SystemClock(),
        ".node!",
    )
    count, channel = 30_000, "specific.node!x"
    got: list[int] = []
    is_sent = threading.Event()

    def take() -> None:
        while True:
            was_sent = is_sent.is_set()
            inbox = local.inboxes.get(channel)
            while inbox is not None and (message := inbox.get_nowait()) is not None:
                got.append(message["number"])
            local.tidy(channel)
            if was_sent and channel not in local.inboxes:
                return

    taking = threading.Thread(target=take)
    taking.start()
    for number in range(count):
        assert local.deliver(channel, Event({"number": number}))
    is_sent.set()
    taking.join(30)
    assert got == list(range(count))
