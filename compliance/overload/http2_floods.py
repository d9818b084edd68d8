"""Abuses of HTTP/2, each from one client, with default settings: cut off, at little cost.

    python -m compliance.overload.http2_floods

Exit status 0 if each connection ended with a GOAWAY, or the streams that were too many with
RST_STREAM, the server's memory grew by at most 5 MB, and none took over 0.3 s of CPU.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from compliance.overload.site import Site, serving
from tests.wire.http2 import frames
from tests.wire.http2.frames import CONTINUATION, GET, POST, Frame, FrameReader, data, headers

MIB = 1 << 20
MOST_MIB = 5.0
MOST_CPU_SECONDS = 0.3
#: The server has taken what it will when its processor time stands still for so long.
QUIET_SECONDS = 0.5
PATIENCE_SECONDS = 3.0

SOURCE = """
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("HTTP alone")
    if scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = bytes(20_000) if scope["path"] == "/long" else b"hello"
    await send({"type": "http.response.body", "body": body})
"""


def at(path: bytes, fields: frames.Pairs = GET) -> frames.Pairs:
    return [(name, path if name == b":path" else value) for name, value in fields]


def rapid_reset() -> Iterator[bytes]:
    for number in range(10_000):
        stream = 2 * number + 1
        yield headers(stream) + frames.rst(stream)


def continuation_flood() -> Iterator[bytes]:
    yield headers(1, flags=0)
    for _ in range(12_000):
        yield frames.frame(CONTINUATION, 0, 1, frames.literal(b"a", bytes([97]) * 1000))


def ping_flood() -> Iterator[bytes]:
    for _ in range(200):
        yield frames.frame(frames.PING, 0, 0, b"12345678") * 1000


def settings_flood() -> Iterator[bytes]:
    for _ in range(50):
        yield frames.settings((frames.INITIAL_WINDOW, 65_535)) * 1000


def hpack_bomb() -> Iterator[bytes]:
    # One field of 4,000 octets in the table, then 15,000 references of one octet to it.
    field = b"\x40" + frames.integer(1, 7) + b"a" + frames.integer(4000, 7) + b"b" * 4000
    for number in range(40):
        block = frames.block(GET) + field + b"\xbe" * 12_000
        yield frames.frame(
            frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 2 * number + 1, block[:16_384]
        )


def empty_data_flood() -> Iterator[bytes]:
    yield headers(1, at(b"/wait", POST), ends=False)
    for _ in range(100):
        yield data(1) * 1000


def tiny_data_flood() -> Iterator[bytes]:
    yield headers(1, at(b"/wait", POST), ends=False)
    for _ in range(100):
        yield data(1, b"a") * 1000


def many_streams() -> Iterator[bytes]:
    for number in range(300):
        yield headers(2 * number + 1, at(b"/wait"))


def window_dribble() -> Iterator[bytes]:
    yield frames.settings((frames.INITIAL_WINDOW, 0))
    for number in range(50):
        yield headers(2 * number + 1, at(b"/long"))
    for _ in range(2000):
        yield b"".join(frames.window_update(2 * number + 1, 1) for number in range(50))


ABUSES: dict[str, Callable[[], Iterable[bytes]]] = {
    "rapid reset, 10,000 streams": rapid_reset,
    "CONTINUATION without end, 12 MB": continuation_flood,
    "200,000 PINGs, nothing read": ping_flood,
    "50,000 SETTINGS": settings_flood,
    "40 HPACK bombs of 48 MB": hpack_bomb,
    "100,000 empty DATA frames": empty_data_flood,
    "100,000 DATA frames of one octet": tiny_data_flood,
    "300 streams at once": many_streams,
    "windows of one octet, 100,000 times": window_dribble,
}


@dataclass(frozen=True, slots=True)
class Found:
    """What an abuse came to."""

    grown_mib: float
    cpu_seconds: float
    #: How it ended: the last GOAWAY, or how many streams were reset.
    end: str

    @property
    def is_good(self) -> bool:
        is_cheap = self.grown_mib <= MOST_MIB and self.cpu_seconds <= MOST_CPU_SECONDS
        return is_cheap and self.end != "not cut"


def run(abuse: Callable[[], Iterable[bytes]]) -> Found:
    with serving(SOURCE, "--http2") as site:
        _one_request(site)
        site.forget_peak()
        memory, cpu = site.peak_bytes(), site.cpu_seconds()
        with socket.create_connection(("127.0.0.1", site.port), PATIENCE_SECONDS) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            try:
                client.sendall(frames.PREFACE + frames.settings())
                for piece in abuse():
                    client.sendall(piece)
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                pass
            _wait_until_quiet(site)
            seconds = site.cpu_seconds() - cpu
            grown = (site.peak_bytes() - memory) / MIB
            end = _end(client)
        _one_request(site)
    return Found(grown, seconds, end)


def _wait_until_quiet(site: Site) -> None:
    now = site.cpu_seconds()
    while True:
        time.sleep(QUIET_SECONDS)
        now, earlier = site.cpu_seconds(), now
        if now - earlier < QUIET_SECONDS / 10:
            return


def _end(client: socket.socket) -> str:
    """What the server said at last."""
    reader, heard = FrameReader(), list[Frame]()
    client.settimeout(PATIENCE_SECONDS)
    try:
        while got := client.recv(65_536):
            heard += reader.feed(got)
    except (TimeoutError, ConnectionResetError):
        pass
    if goaways := [each for each in heard if each.kind == frames.GOAWAY]:
        return f"GOAWAY({goaways[-1].code})"
    resets = [each for each in heard if each.kind == frames.RST_STREAM]
    return f"{len(resets)} streams reset" if resets else "not cut"


def _one_request(site: Site) -> None:
    """Others are served."""
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE_SECONDS) as client:
        client.sendall(frames.PREFACE + frames.settings() + headers(1))
        reader = FrameReader()
        while not any(each.ends_stream for each in reader.feed(client.recv(65_536))):
            pass


def main() -> int:
    found = {name: run(abuse) for name, abuse in ABUSES.items()}
    print(f"{sum(each.is_good for each in found.values())} of {len(found)} cut cheaply")
    for name, each in found.items():
        print(
            f"  {name}: {each.end}, {each.grown_mib:.1f} MB more, {each.cpu_seconds:.2f} s of CPU"
        )
    return 0 if all(each.is_good for each in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
