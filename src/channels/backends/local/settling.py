"""The first moments of a hub: nobody may speak before those who were there before can hear."""

from __future__ import annotations

from typing import Final

from channels.backends.local.place import Place

#: Longest wait for processes that are alive and do not come to a new hub.
SETTLE_SECONDS: Final = 0.3
#: How often it looks meanwhile whether they are still alive.
LOOK_SECONDS: Final = 0.01


class Settling:
    """Whom a new hub waits for.

    Make it before the hub listens: who starts after that finds the hub, and has missed nothing.

    Args:
        now: By the hub's clock.
    """

    def __init__(self, place: Place, now: float) -> None:
        self._place = place
        self._awaited = place.living_nodes()
        self._until = now + SETTLE_SECONDS
        self._look_at = now

    def note_ready(self, node: str) -> None:
        """A process has said all that it has joined."""
        self._awaited.discard(node)

    def is_over(self, now: float) -> bool:
        """True once all have come, or the wait was long enough."""
        if self._awaited and self._look_at <= now < self._until:
            self._look_at = now + LOOK_SECONDS
            # Those who died with the last hub let go of their file a moment after their socket.
            self._awaited &= self._place.living_nodes()
        return not self._awaited or now >= self._until
