"""Looks at the frames of an HTTP/2 connection before they are read, and bounds what is abuse.

A frame costs the server more than it costs its sender, so frames that bring neither a request nor
a body are counted against allowances that grow with time:

    RST_STREAM                                     resets: `http2_max_reset_rate`
    SETTINGS, PING, PRIORITY, unknown types        control: `http2_max_control_rate`
    DATA or a header fragment of no octets         control
    DATA of less than SMALL_BYTES                  a tenth of that
    WINDOW_UPDATE                                  free for what was sent in DATA, else control
    HEADERS and CONTINUATION of one block          `max_header_bytes`, and 64 frames

What a flood would cost without this was measured with h2: 15 to 40 µs for each frame of 9 to 17
octets.  CVE-2019-9511 to 9518 (floods, dribble, windows), CVE-2023-44487 (rapid reset),
CVE-2024-27316 (CONTINUATION).
"""

from __future__ import annotations

from typing import Final

from channels.kit.allowance import RATE_SECONDS, spend
from channels.kit.limits import KIB, Limits

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

#: Flags: both END_STREAM of DATA and HEADERS, and ACK of SETTINGS and PING.
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4

FRAME_HEADER_BYTES: Final = 9
#: Fragments of one header block: the library's own bound, and 64 of 1 KiB fill the octets' bound.
MOST_FRAGMENTS: Final = 64
#: WINDOW_UPDATE frames that each DATA frame of ours is good for: one for its stream, one for all;
#: and more for a large one, which proxies acknowledge in small parts (HAProxy by the kilobyte).
UPDATES_FOR_FRAME: Final = 2
BYTES_FOR_UPDATE: Final = KIB // 2
#: DATA of less brings next to nothing, and costs as much as a PING: 100,000 frames of one octet
#: took 2.4 s.  A tenth, because a short message of a WebSocket is one.  A stream's last is free.
SMALL_BYTES: Final = 64
SMALL_SHARE: Final = 0.1
#: A client may save up so many, the most that it could owe us an answer for.
MOST_UPDATES: Final = 10_000


class Flood(Exception):
    """The peer is over a bound.

    Args:
        reason: The label in the metrics.
        why: What it did, and the bound.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class FrameMeter:
    """Counts the frames of one connection."""

    __slots__ = (
        "_control_rate",
        "_control_whole_at",
        "_fragments",
        "_head_bytes",
        "_most_head_bytes",
        "_reset_rate",
        "_reset_whole_at",
        "_updates",
        "in_head",
    )

    def __init__(self, limits: Limits) -> None:
        self._reset_rate = limits.http2_max_reset_rate
        self._control_rate = limits.http2_max_control_rate
        self._most_head_bytes = limits.max_header_bytes
        #: When each allowance is whole again.
        self._reset_whole_at = 0.0
        self._control_whole_at = 0.0
        self._fragments = 0
        self._head_bytes = 0
        self._updates = 0
        #: True between HEADERS and the CONTINUATION that ends its block.
        self.in_head = False

    def count(self, kind: int, flags: int, size: int, now: float) -> None:
        """Count a frame that has come.

        Raises:
            Flood: If it is one too many.
        """
        if kind == HEADERS or (kind == CONTINUATION and self.in_head):
            self._count_fragment(kind, flags, size, now)
        elif kind == DATA:
            if size < SMALL_BYTES and not flags & END_STREAM:
                share = SMALL_SHARE if size else 1.0
                self._count_control("control frames, or ten times as many tiny ones,", now, share)
        elif kind == RST_STREAM:
            self.count_reset(now)
        elif kind == WINDOW_UPDATE and self._updates:
            self._updates -= 1
        else:
            self._count_control("control frames", now)

    def count_reset(self, now: float) -> None:
        """Count a stream that the client has reset, or had us reset.

        Raises:
            Flood: If it is one too many.
        """
        rate = self._reset_rate
        if rate is None:
            return
        whole_at = spend(self._reset_whole_at, now, 1 / rate, RATE_SECONDS)
        if whole_at is None:
            raise Flood("http2_resets", f"over {rate:g} streams reset a second")
        self._reset_whole_at = whole_at

    def sent(self, size: int) -> None:
        """A DATA frame of so many bytes went out."""
        if self._updates < MOST_UPDATES:
            self._updates += UPDATES_FOR_FRAME + size // BYTES_FOR_UPDATE

    def _count_control(self, what: str, now: float, share: float = 1.0) -> None:
        rate = self._control_rate
        if rate is None:
            return
        whole_at = spend(self._control_whole_at, now, share / rate, RATE_SECONDS)
        if whole_at is None:
            raise Flood("http2_control_frames", f"over {rate:g} {what} a second")
        self._control_whole_at = whole_at

    def _count_fragment(self, kind: int, flags: int, size: int, now: float) -> None:
        if kind == HEADERS:
            self._fragments = self._head_bytes = 0
        self._fragments += 1
        self._head_bytes += size
        self.in_head = not flags & END_HEADERS
        if self._head_bytes > self._most_head_bytes or self._fragments > MOST_FRAGMENTS:
            raise Flood(
                "http2_header_block",
                f"a header block of over {self._most_head_bytes} bytes or {MOST_FRAGMENTS} frames",
            )
        if not size:
            self._count_control("empty header fragments", now)
