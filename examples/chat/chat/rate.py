"""Rate limits of a connection."""

import time
from collections.abc import Callable


class Allowance:
    """A token bucket: `burst` requests at once, refilled at `per_second`.

    The default allows four messages a second, the fastest typing, for twelve seconds, and two a
    second without end.
    """

    def __init__(
        self, burst: int = 24, per_second: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst = burst
        self.per_second = per_second
        self._clock = clock
        self._left = float(burst)
        self._then = clock()

    def take(self) -> float:
        """Take a token: 0 if there was one, else the seconds until there will be."""
        now = self._clock()
        self._left = min(self.burst, self._left + (now - self._then) * self.per_second)
        self._then = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.per_second
