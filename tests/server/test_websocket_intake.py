"""What the frames of one WebSocket may cost, and how slowly they may come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from channels.kit.allowance import RATE_SECONDS
from channels.kit.limits import Limits, Timeouts
from channels.kit.types import Receive, Scope, Send
from channels.server.counts import counts
from tests.server.shell import Recorder, Shell, dial, eventually, serve, text
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame

#: What may pass between two turns of the loop, in seconds of its thread's processor time: ten times
#: the time that a stretch has, and a tenth of what the floods take.
LONGEST_SECONDS = 0.05
FLOOD_BYTES = 96 * 1024


class Turns:
    """The longest time of the loop's thread between two turns of the loop."""

    longest_seconds = 0.0

    async def watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - before)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    turns = Turns()
    task = asyncio.create_task(turns.watch())
    try:
        yield turns
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def take_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that never waits where something is there."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


FRAGMENTS = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 4000 + frame(CONTINUATION)


@pytest.mark.parametrize(
    "some",
    [frame(PING), frame(PONG), FRAGMENTS, frame(TEXT), frame(BINARY), frame(TEXT, b"x" * 100)],
    ids=["pings", "pongs", "fragments", "texts", "bytes", "longer texts"],
)
@pytest.mark.parametrize("is_closing", [False, True], ids=["open", "closing"])
async def test_no_flood_keeps_the_loop(some: bytes, is_closing: bool) -> None:
    async def close_first(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    application = close_first if is_closing else take_all
    limits = Limits(max_control_rate=None)
    async with serve(application, limits=limits) as server, dial(server) as client:
        if is_closing:
            assert await client.read_frame() == (0x80 | CLOSE, b"\x03\xe8")
        client.send(some * (FLOOD_BYTES // len(some)))
        await client.writer.drain()
        async with watched() as turns:
            client.send(close(1000))
            while (got := await client.read_frame()) is not None:
                assert got[0] in {0x80 | PONG, 0x80 | CLOSE}
        assert turns.longest_seconds < LONGEST_SECONDS


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_too_many_control_frames_are_a_violation(
    opcode: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Recorder()
    before = counts.cut["control_frames"]
    async with serve(app, limits=Limits(max_control_rate=2)) as server, dial(server) as client:
        client.send(frame(opcode) * 2 * RATE_SECONDS, text("good"))
        while (got := await client.read_frame()) != (0x81, b"good"):
            assert got == (0x80 | PONG, b"")
        client.send(frame(opcode), text("not read"))
        assert await client.read_close() == 1008
        event = await app.until_disconnected()
        assert (event["code"], event["reason"]) == (1008, "Too many pings and pongs.")
        assert app.kinds == ["connect", "receive", "disconnect"]
    assert counts.cut["control_frames"] == before + 1


async def test_pings_and_pongs_at_the_allowed_rate_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels.server.websocket_intake.RATE_SECONDS", 0.2)
    limits = Limits(max_control_rate=10)
    async with serve(Recorder(), limits=limits) as server, dial(server) as client:
        for _ in range(3):
            client.send(frame(PONG) * 2, text("on"))
            assert await client.read_frame() == (0x81, b"on")
            await asyncio.sleep(0.25)


async def test_control_frames_after_our_close_are_counted_too() -> None:
    async def close_at_once(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    limits = Limits(max_control_rate=1)
    async with serve(close_at_once, limits=limits) as server, dial(server) as client:
        assert await client.read_frame() == (0x80 | CLOSE, b"\x03\xe8")
        client.send(frame(PING) * (RATE_SECONDS + 1))
        assert await client.read_frames() == []


async def drip(server: Shell, data: bytes, every_seconds: float) -> list[tuple[int, bytes]]:
    """Send `data` octet by octet until the connection ends; what came from the server."""
    async with dial(server) as client:
        frames = asyncio.ensure_future(client.read_frames())
        for octet in data:
            if frames.done() or client.writer.is_closing():
                break
            client.send(bytes([octet]))
            await asyncio.sleep(every_seconds)
        return await frames


QUICK = Timeouts(frame_timeout=0.2, ping_interval=None)


@pytest.mark.parametrize("size", [10, 200, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
async def test_a_frame_that_drips_is_cut_off(opcode: int, size: int) -> None:
    app = Recorder()
    size = min(size, 125) if opcode == PING else size
    whole = frame(opcode, b"x" * size)
    before = counts.cut["slow_frame"]
    async with serve(app, timeouts=QUICK, limits=Limits(min_frame_rate=400)) as server:
        # 50 a second at most; none of these is whole before it is cut.
        assert await drip(server, whole[:-1] + bytes(100), 0.02) == []
        event = await app.until_disconnected()
    assert (event["code"], event["reason"]) == (1006, "A frame came too slowly.")
    assert counts.cut["slow_frame"] == before + 1


@pytest.mark.parametrize("size", [1, 3, 8, 20], ids=lambda size: f"{size} of 70 kB")
async def test_silence_in_the_middle_of_a_frame_is_cut_off(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Recorder()
    async with serve(app, timeouts=QUICK) as server, dial(server) as client:
        client.send(frame(BINARY, bytes(70_000))[:size])
        assert await client.read_frames() == []
        assert (await app.until_disconnected())["code"] == 1006


async def test_small_frames_in_pieces_may_come_as_seldom_as_they_like() -> None:
    """Each is whole within its time; that the client is always in the middle of one is no fault."""
    data = text("a") * 12
    async with serve(Recorder(), timeouts=QUICK) as server, dial(server) as client:
        for start in range(0, len(data), 7):
            # The end of one frame with the beginning of the next.
            client.send(data[:4] if start == 0 else data[start - 3 : start + 4])
            await asyncio.sleep(0.05)
        client.send(data[-3:])
        for _ in range(12):
            assert await client.read_frame() == (0x81, b"a")


async def test_a_large_frame_at_the_least_rate_arrives() -> None:
    data = frame(BINARY, bytes(3000))
    limits = Limits(min_frame_rate=100)
    async with serve(Recorder(), timeouts=QUICK, limits=limits) as server, dial(server) as client:
        for start in range(0, len(data), 300):
            client.send(data[start : start + 300])
            await asyncio.sleep(0.05)
        assert await client.read_frame() == (0x82, bytes(3000))


async def test_a_frame_that_we_do_not_read_on_has_its_time_afterwards() -> None:
    """The application is busy: the socket is left unread, and the client cannot be judged."""
    go = asyncio.Event()
    received = 0

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            received += 1

    async with serve(busy, timeouts=QUICK) as server, dial(server) as client:
        client.send(text("x") * 40, text("last")[:3])
        await asyncio.sleep(0.5)
        go.set()
        await eventually(lambda: received == 40)
        client.send(text("last")[3:])
        await eventually(lambda: received == 41)
