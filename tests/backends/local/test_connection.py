"""A process's socket to the hub: when what is written leaves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator

import msgpack
import pytest
import uvloop

from channels.backends.local.connection import READ_OCTETS, HubConnection
from channels.backends.local.transport import _on_turned_away


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
    handlers: dict[str, Callable[..., None]] = {
        "envelope": came.append,
        "leased": lambda queue, token, attempts, data: came.append(data),
        "turned_away": _on_turned_away,
    }
    return HubConnection(near, handlers, lambda error: on_lost(), 65536, 1 << 20)


def said(far: socket.socket) -> list[str]:
    """The kinds of what has arrived."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(arrived(far))
    return [kind for kind, *_ in unpacker]


def hub_says(*messages: tuple[object, ...]) -> bytes:
    return b"".join(map(msgpack.packb, messages))


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
    connection.send("ping")
    assert said(far) == ["ping"]
    connection.send("ready")
    answer = connection.request("flush")
    assert said(far) == []
    await asyncio.sleep(0)
    assert said(far) == ["ready", "flush"]
    far.send(hub_says(("envelope", b"one"), ("answered", 1), ("leased", "jobs", b"", 1, b"two")))
    await answer
    assert came == [b"one", b"two"]
    # Something has come: the next one is a first again.
    connection.send("ping")
    assert said(far) == ["ping"]
    connection.close()


async def test_what_does_not_fit_leaves_in_order_when_there_is_room(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    connection = connect(near, [])
    for number in range(200):
        connection.send("publish", str(number), bytes(4096))
    unpacker = msgpack.Unpacker()
    groups: list[str] = []
    while len(groups) < 200:
        unpacker.feed(arrived(far))
        groups += [group for _, group, _ in unpacker]
        await asyncio.sleep(0)
    assert groups == [str(number) for number in range(200)]
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
        connection.send("ping")
        far.send(hub_says(("envelope", b"last")))
        far.close()
        async with asyncio.timeout(2):
            await lost.wait()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(live())
    assert came == [b"last"]


@pytest.mark.parametrize(
    "octets",
    [
        b"\xc1",
        b"\x01",
        hub_says(("envelope",)),
        hub_says(("envelope", "text")),
        hub_says(("unheard of",)),
        hub_says((["list"], 1)),
        hub_says(("answered", 1)),
        hub_says(("refused", 1, False, "not asked")),
        hub_says(("turned_away", "for a reason")),
        hub_says(("envelope", bytes(1 << 20))),
    ],
    ids=lambda octets: repr(octets[:20]),
)
async def test_what_no_hub_says_ends_the_connection(
    pair: tuple[socket.socket, socket.socket], octets: bytes
) -> None:
    near, far = pair
    lost = asyncio.Event()
    connect(near, [], lost.set)
    far.setblocking(True)
    sending = asyncio.create_task(asyncio.to_thread(far.sendall, octets))
    async with asyncio.timeout(10):
        await lost.wait()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_long_message_that_comes_in_pieces_is_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    came: list[bytes] = []
    connection = connect(near, came)
    data = hub_says(("envelope", bytes(60_000)), ("envelope", b"next"), ("answered", 1))
    answer = connection.request("flush")
    for at in range(0, len(data), 1000):
        far.send(data[at : at + 1000])
        await asyncio.sleep(0)
    await answer
    assert came == [bytes(60_000), b"next"]
    connection.close()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_much_that_waits_leaves_the_loop_its_turns(
    pair: tuple[socket.socket, socket.socket], make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    near, far = pair
    message = hub_says(("envelope", bytes(1000)))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    far.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1000:
            far.send(message)
            sent += 1
    came: list[bytes] = []
    counts = [0]

    async def live() -> None:
        connection = connect(near, came)
        async with asyncio.timeout(10):
            while len(came) < sent:
                await asyncio.sleep(0)
                counts.append(len(came))
        connection.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(live())
    most = 2 * READ_OCTETS // len(message)
    assert sent > 4 * most, "no socket takes enough to tell"
    assert max(later - former for former, later in itertools.pairwise(counts)) <= most + 1
