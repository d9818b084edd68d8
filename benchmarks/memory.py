"""What a server's process grows to while it serves large bodies, beside a peer.

    script/bench memory                                  every case, ours
    script/bench memory --peer daphne=/path/to/venv      another server beside it
    script/bench memory downloads errors                 some cases

Each case has a server of its own.  Its resident memory is read some hundred times a second, from
after the first request to after the last; the figure is the peak in MB, the start included.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.run import BUILD, QUIET, Contender, ours, peer, running

#: Our peak may be so many times the peer's.
GOAL = 1.2
SITE = "benchmarks.memory_site:application"
BODY = b"x" * 10_000_000
MESSAGE_BYTES = 1_000_000


def download(port: int) -> None:
    assert len(_ask(port, "GET", "/download")) == 30_000_000


def upload(port: int) -> None:
    assert _ask(port, "POST", "/upload", BODY) == b"10000000"


def error(port: int) -> None:
    _ask(port, "POST", "/failing", BODY)


def _ask(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        client.request(method, path, body)
        return client.getresponse().read()
    finally:
        client.close()


def abandon(port: int) -> None:
    """Ask for the download, read the beginning of it and go."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
        client.recv(65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def message_error(port: int, path: str = "/failing") -> None:
    """Send a message at which the consumer raises, and wait for a close frame or a reset."""
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in client.recv(65536)
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, MESSAGE_BYTES)
        # A mask of zeros leaves the payload as it is.
        client.sendall(head + bytes(4) + bytes(MESSAGE_BYTES))
        with contextlib.suppress(ConnectionError):
            client.recv(2)


def message_error_sync(port: int) -> None:
    message_error(port, "/failing-sync")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing done many times, so many at once."""

    name: str
    about: str
    do: Callable[[int], None]
    times: int
    at_once: int = 1


CASES = [
    Case("downloads", "24 downloads of 30 MB, one after the other", download, 24),
    Case("downloads-at-once", "24 downloads of 30 MB at once", download, 24, 24),
    Case("abandoned", "24 downloads of 30 MB that the client abandons", abandon, 24),
    Case("uploads", "60 uploads of 10 MB, one after the other", upload, 60),
    Case("uploads-at-once", "60 uploads of 10 MB, 12 at once", upload, 60, 12),
    Case("errors", "60 uploads of 10 MB at which the view raises", error, 60),
    Case("errors-at-once", "the same, 12 at once", error, 60, 12),
    Case("messages", "40 messages of 1 MB at which an async consumer raises", message_error, 40),
    Case("messages-sync", "the same in a sync consumer", message_error_sync, 40),
]  # fmt: skip


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """A list that has the peak of a process's resident memory in the end."""
    found = [resident_mb(pid)]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.003):
            found[0] = max(found[0], resident_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        found[0] = max(found[0], resident_mb(pid))


def measure(contender: Contender, case: Case) -> float:
    """The peak in MB."""
    command = [part.replace(QUIET[-1], SITE) for part in contender.command]
    server = running(command, contender.source, BUILD / f"{contender.name}.log")
    with server as site, ThreadPoolExecutor(case.at_once) as pool:
        case.do(site.port)
        with watched(site.pids[0]) as peak:
            for each in [pool.submit(case.do, site.port) for _ in range(case.times)]:
                each.result()
    return peak[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=FOLDER")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(names):
        parser.error(f"no case is named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    BUILD.mkdir(exist_ok=True)
    contenders = [ours(), *chosen.peer]
    print("| case | " + " | ".join(f"{each.name} MB" for each in contenders) + " |")
    print("|---|" + "---|" * len(contenders))
    missed = 0
    for case in CASES:
        if chosen.cases and case.name not in chosen.cases:
            continue
        peaks = [measure(each, case) for each in contenders]
        missed += any(peaks[0] > GOAL * theirs for theirs in peaks[1:])
        cells = " | ".join(f"{peak:.0f}" for peak in peaks)
        print(f"| {case.about} | {cells} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
