"""The local layer between processes: python benchmarks/local_layer.py [--messages 50000]

    group       one process sends to a group, another receives: messages a second
    transport   the same without the layers' part: envelopes out of one process into another
    hub alone   the same over bare sockets: what the hub could do
    one way     a message there and back between two processes, half of it: p50, p99
    election    from SIGKILL of the hub's process to the next message that arrives

Everything runs below a temporary directory and ends within about half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from channels.layers import LocalChannelLayer
from channels.layers.envelope import Envelope, Kind
from channels.layers.hub import frames
from channels.layers.hub.frames import Splitter, frame, pack_many
from channels.layers.hub.options import HubOptions
from channels.layers.hub.place import find_place
from channels.layers.hub.transport import HubTransport
from channels.layers.names import new_node

WINDOW = 200


def make_layer(directory: str) -> LocalChannelLayer:
    return LocalChannelLayer(directory=directory, capacity=1_000_000)


async def own_loop(directory: str) -> LocalChannelLayer:
    """A layer on the running loop, as under our server and worker."""
    layer = make_layer(directory)
    layer.adopt_loop()
    return layer


# The other processes.


async def idle(directory: str) -> None:
    """Be the hub."""
    layer = await own_loop(directory)
    await layer.new_channel()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def echo(directory: str) -> None:
    """Send back what comes."""
    layer = await own_loop(directory)
    channel = await layer.new_channel()
    print(channel, flush=True)
    while True:
        message = await layer.receive(channel)
        await layer.send(message["back"], message)


async def count(directory: str, messages: int) -> None:
    """Receive a group's messages and say how long it took."""
    layer = await own_loop(directory)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print("ready", flush=True)
    await layer.receive(channel)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(messages - 1):
        await layer.receive(channel)
    print(time.perf_counter() - began, time.process_time() - used, flush=True)


class Sink:
    """Events of a transport: counts what comes."""

    def __init__(self, messages: int = 0) -> None:
        self.up = asyncio.Event()
        self.all_came = asyncio.Event()
        self.began = 0.0
        self._left = messages

    def on_frame(self, data: bytes) -> None:
        if not self.began:
            self.began = time.perf_counter()
        self._left -= 1
        if not self._left:
            self.all_came.set()

    def on_up(self, kept: bool) -> None:
        self.up.set()

    def on_down(self, error: BaseException | None) -> None:
        pass

    def on_gap(self, groups: Any) -> None:
        raise RuntimeError("the reader was too slow: nothing was measured")

    def capacity_of(self, channel: str) -> int:
        return 1


async def start_transport(directory: str, sink: Any) -> HubTransport:
    transport = HubTransport(find_place("channels", directory), HubOptions(), 1024 * 1024)
    await transport.start(new_node(), sink)
    await sink.up.wait()
    return transport


async def sink(directory: str, messages: int) -> None:
    """Receive envelopes and say how long it took."""
    events = Sink(messages)
    transport = await start_transport(directory, events)
    await transport.join(["room"])
    print("ready", flush=True)
    await events.all_came.wait()
    print(time.perf_counter() - events.began, flush=True)


class Process:
    """One of them."""

    def __init__(self, role: str, directory: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role, "--directory", directory, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    async def next_line(self) -> str:
        return await asyncio.to_thread(self.line)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(number)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


# What is measured.


async def measure_group(messages: int) -> tuple[float, float, float]:
    """Messages a second; processor microseconds a message of the sender and of the reader."""
    with tempfile.TemporaryDirectory() as directory:
        hub = Process("idle", directory)
        hub.line()
        reader = Process("count", directory, "--messages", str(messages))
        reader.line()
        layer = await own_loop(directory)
        # Connected before the traffic: what waits for a connection is sent one by one.
        await layer.new_channel()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < messages:
                sent += 1
                await layer.group_send("room", {"type": "x", "text": "x" * 80})

        used = time.process_time()
        await asyncio.gather(*(send() for _ in range(WINDOW)))
        used = time.process_time() - used
        seconds, reading = map(float, (await reader.next_line()).split())
        await layer.close()
        reader.end()
        hub.end()
    return messages / seconds, used / messages * 1e6, reading / messages * 1e6


async def measure_transport(messages: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        hub = Process("idle", directory)
        hub.line()
        reader = Process("sink", directory, "--messages", str(messages))
        reader.line()
        transport = await start_transport(directory, Sink())
        sender = os.urandom(8)
        for first in range(0, messages, WINDOW):
            last = None
            for seq in range(first, first + WINDOW):
                envelope = Envelope(Kind.GROUP, "room", b"x" * 90, sender=sender, seq=seq)
                last = asyncio.ensure_future(transport.publish("room", envelope))
            # Answers come in order: the last one's is that of all.
            if last is not None:
                await last
        seconds = float(await reader.next_line())
        await transport.stop()
        reader.end()
        hub.end()
    return messages / seconds


def measure_hub(messages: int) -> float:
    """Frames a second through the hub, from one bare socket to another."""
    with tempfile.TemporaryDirectory() as directory:
        hub = Process("idle", directory)
        hub.line()
        place = find_place("channels", directory)
        ends = []
        for node in (b"nwriter", b"nreader"):
            end = socket.socket(socket.AF_UNIX)
            end.connect(str(place.socket))
            hello = frames.HELLO_BODY.pack(frames.VERSION, bytes(8), False, os.getpid())
            end.sendall(frame(frames.HELLO, node, hello) + frame(frames.READY))
            ends.append(end)
        writer, reader = ends
        reader.sendall(frame(frames.JOIN, b"", pack_many([b"room"])))
        one = frame(frames.GROUP, b"room", b"x" * 140)
        batch = one * WINDOW
        time.sleep(0.2)
        writer.recv(65536)
        reader.recv(65536)
        splitter, got = Splitter(1024 * 1024), 0
        began = time.perf_counter()
        for _ in range(messages // WINDOW):
            writer.sendall(batch)
            got_before = got
            while got - got_before < WINDOW:
                _, spans = splitter.split(reader.recv(1024 * 1024))
                got += sum(kind == frames.GROUP for kind, *_ in spans)
        seconds = time.perf_counter() - began
        for end in ends:
            end.close()
        hub.end()
    return got / seconds


async def measure_one_way(times: int, *, here: bool) -> list[float]:
    """Halves of round trips in microseconds; the hub in this process or in a third."""
    with tempfile.TemporaryDirectory() as directory:
        layer = await own_loop(directory)
        hub = None
        if not here:
            hub = Process("idle", directory)
            hub.line()
        channel = await layer.new_channel()
        other = Process("echo", directory)
        there = other.line()
        halves = []
        for _ in range(times):
            began = time.perf_counter()
            await layer.send(there, {"type": "x", "back": channel})
            await layer.receive(channel)
            halves.append((time.perf_counter() - began) / 2 * 1e6)
        await layer.close()
        other.end()
        if hub is not None:
            hub.end()
    return halves[times // 10 :]


async def measure_election(times: int) -> list[float]:
    """Milliseconds from the hub's death to a message that arrives through the next one."""
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as directory:
            hub = Process("idle", directory)
            hub.line()
            other = Process("echo", directory)
            there = other.line()
            layer = await own_loop(directory)
            channel = await layer.new_channel()
            await layer.send(there, {"type": "x", "back": channel})
            await layer.receive(channel)
            hub.end()
            began = time.perf_counter()
            await layer.send(there, {"type": "x", "back": channel})
            await layer.receive(channel)
            found.append((time.perf_counter() - began) * 1e3)
            await layer.close()
            other.end()
    return found


async def measure(messages: int) -> None:
    rate, sending, reading = await measure_group(messages)
    costs = f"{sending:.0f} µs of processor to send one, {reading:.0f} to receive it"
    print(f"group      {rate:>10,.0f} messages/s, {costs}")
    print(f"transport  {await measure_transport(4 * messages):>10,.0f} messages/s")
    print(f"hub alone  {measure_hub(8 * messages):>10,.0f} frames/s")
    for here in (True, False):
        halves = await measure_one_way(2000, here=here)
        cuts = statistics.quantiles(halves, n=100)
        where = "in one of the two" if here else "in a third process"
        print(f"one way    {cuts[49]:>10.0f} µs p50, {cuts[98]:.0f} µs p99, hub {where}")
    times = await measure_election(10)
    print(
        f"election   {statistics.median(times):>10.1f} ms median, {max(times):.1f} ms worst of 10"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--role", choices=["idle", "echo", "count", "sink"])
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    roles: dict[str, Any] = {"idle": idle, "echo": echo}
    if arguments.role is None:
        asyncio.run(measure(arguments.messages))
    elif arguments.role in {"count", "sink"}:
        work = count if arguments.role == "count" else sink
        asyncio.run(work(arguments.directory, arguments.messages))
    else:
        asyncio.run(roles[arguments.role](arguments.directory))


if __name__ == "__main__":
    main()
