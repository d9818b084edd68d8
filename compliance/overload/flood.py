"""512 MB to a WebSocket client that reads nothing: sending waits, then the client is cut off.

    python -m compliance.overload.flood

Exit status 0 if the server grew by at most 2 MiB, cut the client off after `write_timeout` (the
default) and told the application so with a close code of its own, not with 1006.
"""

from __future__ import annotations

import sys
import time

from tests.hostile.frames import WebSocketClient
from tests.hostile.process import ServerProcess

from channels.kit.limits import Timeouts

MIB = 1 << 20
BAR_MIB = 2.0
SLACK = 10.0


def main() -> int:
    server = ServerProcess({})
    try:
        with WebSocketClient(server.address, receive_buffer_bytes=4096) as client:
            client.open("/flood-512")
            before = server.state().resident_bytes
            began = time.monotonic()
            worst, notes = 0, [""]
            timeout = Timeouts().write_timeout
            assert timeout is not None, "the default cuts"
            while time.monotonic() - began < timeout + SLACK:
                worst = max(worst, server.state().resident_bytes - before)
                notes = server.seen(client.port) or [""]
                if notes[-1].startswith("disconnect"):
                    break
                time.sleep(0.5)
            seconds = time.monotonic() - began
    finally:
        server.kill()
    grown = worst / MIB
    code = notes[-1].removeprefix("disconnect ")
    print(f"{grown:.1f} MB more, cut after {seconds:.0f} s, application told {code or 'nothing'}")
    good = code.isdigit() and int(code) not in {1000, 1005, 1006} and "sent all" not in notes
    return 0 if good and grown <= BAR_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
