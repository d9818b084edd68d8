"""How late an event loop is: what each message waits before anything looks at it."""

from __future__ import annotations

import asyncio
from typing import Final

from channels.kit.histograms import Histograms, add_time, measuring
from channels.server.loops import call_on

#: Between two looks.
_PAUSE_SECONDS: Final = 0.5

lags: Final = Histograms(
    "channels_event_loop_lag_seconds", "How late a timer of the server's event loop runs.", ()
)


class LoopLag:
    """Observes the lag of a loop, from the moment that times are measured in this process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Observe this loop until `stop`; called on it."""
        self._loop = loop
        measuring.follow(self._begin)

    def stop(self) -> None:
        """End; on the loop, any number of times."""
        measuring.unfollow(self._begin)
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        # Perhaps on the thread of a view.
        call_on(self._loop, self._wait)

    def _wait(self) -> None:
        if (loop := self._loop) is not None:
            due = loop.time() + _PAUSE_SECONDS
            self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        add_time(lags.of(), loop.time() - due)
        self._wait()
