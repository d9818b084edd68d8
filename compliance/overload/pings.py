"""Pings without end from a client that reads nothing: reading stops, memory stays where it was.

    python -m compliance.overload.pings

Exit status 0 if neither 4,000,000 empty pings nor 400,000 of 100 octets are all taken, and the
server's memory grew by at most 2 MiB meanwhile.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from compliance.overload.site import Site
from tests.hostile.frames import PING, WebSocketClient, frame
from tests.hostile.process import ServerProcess

MIB = 1 << 20
BAR_MIB = 2.0
#: Size of a ping's payload -> thousands of pings: 400, or more than the kernel's buffers hold.
FLOODS = {0: 4000, 100: 400}
#: The server has taken what it will when its processor time stands still for so many seconds.
QUIET = 1.0


def flood(size: int, thousands: int) -> tuple[float, int, float]:
    """Pings of this size: MiB that the server grew by, thousands that went out, seconds of CPU."""
    server = ServerProcess({})
    # Watched from outside: a flooded server may be slow to answer.
    site = Site(server.address[1], server.process.pid, Path())
    try:
        with WebSocketClient(server.address, receive_buffer_bytes=4096) as client:
            client.open()
            site.forget_peak()
            memory, cpu = site.peak_bytes(), site.cpu_seconds()
            sent = client.send_until_blocked(frame(PING, b"x" * size) * 1000, thousands)
            now = site.cpu_seconds()
            while True:
                time.sleep(QUIET)
                now, earlier = site.cpu_seconds(), now
                if now - earlier < QUIET / 10:
                    break
            return (site.peak_bytes() - memory) / MIB, sent, now - cpu
    finally:
        server.kill()


def main() -> int:
    found = {size: flood(size, thousands) for size, thousands in FLOODS.items()}
    worst = max(grown for grown, _, _ in found.values())
    all_taken = [size for size, (_, sent, _) in found.items() if sent == FLOODS[size]]
    print(f"{worst:.1f} MB more, {'' if all_taken else 'not '}all pings taken")
    for size, (grown, sent, cpu) in found.items():
        print(f"  {size} octets: {sent},000 sent, {grown:.1f} MB more, {cpu:.2f} s of CPU")
    return 1 if all_taken or worst > BAR_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
