"""How much a connection may ask for."""

import time
from collections.abc import Callable


class Allowance:
    """A bucket of `burst` requests that fills again by `per_second`.

    The default lets a person type as fast as they can for ten seconds (four messages a second),
    and after that two messages a second for as long as they like.
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
        """Take one request: 0 if it was there, else the seconds until it will be."""
        now = self._clock()
        self._left = min(self.burst, self._left + (now - self._then) * self.per_second)
        self._then = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.per_second
