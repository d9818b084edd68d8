"""What the tutorial's reader does with a browser, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

#: How long a message may take that must come.
PATIENCE_SECONDS = 20.0
#: How long is listened for one that must not come, after one sent later has come elsewhere.
SILENCE_SECONDS = 0.2


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def enter_room(port: int, room: str) -> Iterator[ClientConnection]:
    """The WebSocket that the room's page opens."""
    with connect(
        f"ws://127.0.0.1:{port}/ws/chat/{room}/",
        origin=Origin(f"http://127.0.0.1:{port}"),
        open_timeout=PATIENCE_SECONDS,
    ) as socket:
        yield socket


def post(socket: ClientConnection, message: str) -> None:
    """Type a message and press Enter."""
    socket.send(json.dumps({"message": message}))


def read(socket: ClientConnection) -> str:
    """The next line of the chat log."""
    message: str = json.loads(socket.recv(PATIENCE_SECONDS))["message"]
    return message


def reads_nothing(socket: ClientConnection) -> bool:
    """True if no line came."""
    try:
        socket.recv(SILENCE_SECONDS)
    except TimeoutError:
        return True
    return False
