"""Connections that stall, each kind with the server's default settings: how long until they end?

    python -m compliance.overload.stalled

Exit status 0 if each kind ends within its time.  Takes as long as the longest, about 70 seconds.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.hostile.case import get, post
from tests.hostile.client import RawClient
from tests.hostile.frames import BINARY, TEXT, WebSocketClient, frame, handshake
from tests.hostile.process import ServerProcess

#: Seconds beyond its time that a busy machine may take.
SLACK = 4.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to stall.

    Attributes:
        seconds: The bar; the connection must have ended by then.
        begin: What is sent first.
        drip: Sent again each `every` seconds, until the connection ends.
    """

    name: str
    seconds: float
    begin: bytes
    drip: bytes = b""
    every: float = 1.0
    is_websocket: bool = False


KINDS = [
    Kind("nothing is sent", 10, b""),
    Kind("half a head", 10, b"GET / HTTP/1.1\r\nHost: a\r\nX: "),
    Kind("a head that drips, an octet in 4 s", 10, b"GET / HTTP/1.1\r\nX: ", b"a", 4.0),
    Kind("a body that stops", 30, post(b"Content-Length: 10", body=b"hello")),
    Kind("a body that drips, an octet a second", 60,
         post(b"Content-Length: 100000"), b"a"),
    Kind("chunks that drip, an octet a second", 60,
         post(b"Transfer-Encoding: chunked"), b"1\r\na\r\n"),
    Kind("idle after an answer", 10, get()),
    Kind("a WebSocket that is never accepted", 10, handshake("/never-accept")),
    Kind("a silent WebSocket", 40, b"", is_websocket=True),
    Kind("half a frame", 40, frame(TEXT, b"hello")[:-2], is_websocket=True),
    Kind("a frame that drips, an octet a second", 60, frame(BINARY, b"a" * 1000)[:8], b"a",
         is_websocket=True),
]  # fmt: skip


def stall(server: ServerProcess, kind: Kind) -> float:
    """Seconds until the server closed; or its time and a little, if it has not."""
    client: RawClient
    with (WebSocketClient if kind.is_websocket else RawClient)(server.address) as client:
        if isinstance(client, WebSocketClient):
            client.open()
        began = time.monotonic()
        client.send(kind.begin)
        client.socket.settimeout(0.2)
        next_drip = began + kind.every
        while (now := time.monotonic()) - began < kind.seconds + SLACK:
            if kind.drip and now >= next_drip:
                next_drip = now + kind.every
                client.send(kind.drip)
            if ended(client):
                break
        return time.monotonic() - began


def ended(client: RawClient) -> bool:
    try:
        return not client.read_some()
    except TimeoutError:
        return False


def main() -> int:
    server = ServerProcess({})
    try:
        with ThreadPoolExecutor(len(KINDS)) as pool:
            times = list(pool.map(partial(stall, server), KINDS))
        server.assert_calm()
    finally:
        server.kill()
    late = [kind for kind, took in zip(KINDS, times, strict=True) if took >= kind.seconds + SLACK]
    print(f"{len(KINDS) - len(late)} of {len(KINDS)} kinds closed in their time")
    for kind, took in zip(KINDS, times, strict=True):
        word = "open after" if kind in late else "closed after"
        print(f"  {kind.name}: {word} {took:.1f} s (bar: {kind.seconds:g} s)")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
