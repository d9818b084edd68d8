"""A rate, averaged: what may be taken at once, and how fast the allowance grows again.

An allowance is one number, the moment when it is whole again, by the monotonic clock.
"""

from __future__ import annotations

from typing import Final

#: Over how long a rate is an average: clients may come, or speak, all at once and then be silent.
RATE_SECONDS: Final = 10


def spend(whole_at: float, now: float, seconds: float, burst: float) -> float | None:
    """Take `seconds` of an allowance of `burst` seconds, which grows by one in each second.

    Returns when it is whole again; None if there is not so much left: then nothing is taken.
    """
    after = max(whole_at, now) + seconds
    return after if after <= now + burst else None
