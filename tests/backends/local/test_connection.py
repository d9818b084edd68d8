"""A process's socket to the hub: when what is written leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop

from channels.backends.local import frames
from channels.backends.local.connection import HubConnection
from channels.backends.local.frames import frame


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    yield near, far
    far.close()
    near.close()


def connect(
    near: socket.socket, came: list[bytes], on_lost: Callable[[], None] = lambda: None
) -> HubConnection:
    return HubConnection(
        near,
        came.append,
        lambda kind, data, start, name_end, end: came.append(data[name_end:end]),
        lambda error: on_lost(),
        longest=1024,
        buffer_octets=65536,
    )


def arrived(far: socket.socket) -> bytes:
    try:
        return far.recv(4096)
    except BlockingIOError:
        return b""


async def test_the_first_leaves_at_once_and_the_rest_of_its_turn_together(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    came: list[bytes] = []
    connection = connect(near, came)
    connection.write(b"a")
    assert arrived(far) == b"a"
    connection.write(b"b")
    answer = connection.request(b"c")
    assert arrived(far) == b""
    await asyncio.sleep(0)
    assert arrived(far) == b"bc"
    far.send(
        frame(frames.GROUP, b"room", b"one")
        + frame(frames.ANSWERED, b"", frames.NUMBER.pack(1))
        + frame(frames.LEASED, b"jobs", b"two")
    )
    await answer
    assert came == [b"one", b"two"]
    # Something has come: the next one is a first again.
    connection.write(b"d")
    assert arrived(far) == b"d"
    connection.close()


async def test_what_does_not_fit_leaves_in_order_when_there_is_room(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    connection = connect(near, [])
    size = 0
    for number in range(200):
        data = bytes([number]) * 4096
        connection.write(data)
        size += len(data)
    got = b""
    while len(got) < size:
        got += arrived(far)
        await asyncio.sleep(0)
    assert got == b"".join(bytes([number]) * 4096 for number in range(200))
    connection.close()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_end_is_seen_where_the_hub_left_something_unread(
    pair: tuple[socket.socket, socket.socket], make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A hub that is killed in the midst of traffic."""
    near, far = pair
    came: list[bytes] = []

    async def live() -> None:
        lost = asyncio.Event()
        connection = connect(near, came, lost.set)
        connection.write(b"never read")
        far.send(frame(frames.GROUP, b"room", b"last"))
        far.close()
        async with asyncio.timeout(2):
            await lost.wait()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(live())
    assert came == [b"last"]
