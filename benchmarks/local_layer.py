"""The local layer between processes: python benchmarks/local_layer.py [--messages 50000] [--runs 5]

    group       `group_send` in one process, `receive` in another, one of the two being the hub
    send        the same with `send` to the other's channel
    transport   the same without the layers' part: envelopes out of one process into another
    hub alone   the same over bare sockets: what the hub could do
    one way     a message there and back between two processes, half of it: p50, p99
    election    from SIGKILL of the hub's process to the next message that arrives

A rate is messages by seconds from the first send to the last that was received, with 200 tasks that
each await their send before the next, messages of 100 bytes, on asyncio's own loop and on uvloop.
Each message has a number, and one that is lost, doubled or out of order ends the run.  Ends with
status 1 if a goal is missed.  Everything runs below a temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import msgpack

from channels.backends.local.options import HubOptions
from channels.backends.local.place import find_place
from channels.backends.local.protocol import VERSION
from channels.backends.local.transport import HubTransport
from channels.layers import LocalChannelLayer
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import new_node

#: Tasks that send at a time.
WINDOW = 200
ROUND_TRIPS = 2000
RATE_GOAL = 100_000
ONE_WAY_GOAL = 150.0
ELECTION_GOAL = 100.0
LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]


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


async def ask(directory: str) -> None:
    """Send to the process that is named, wait for its answer, and say what half of that took."""
    layer = await own_loop(directory)
    channel = await layer.new_channel()
    print("ready", flush=True)
    there = (await asyncio.to_thread(sys.stdin.readline)).strip()
    halves = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        await layer.send(there, {"type": "x", "back": channel})
        await layer.receive(channel)
        halves.append((time.perf_counter() - began) / 2 * 1e6)
    cuts = statistics.quantiles(halves[ROUND_TRIPS // 10 :], n=100)
    print(cuts[49], cuts[98], flush=True)
    await asyncio.Event().wait()


async def count(directory: str, messages: int) -> None:
    """Receive a group's messages, or a channel's, and say when the last one came."""
    layer = await own_loop(directory)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print(channel, flush=True)
    used = time.process_time()
    for number in range(messages):
        message = await layer.receive(channel)
        if message["number"] != number:
            raise RuntimeError(f"expected number {number}, found {message['number']}")
    print(time.monotonic(), time.process_time() - used, flush=True)
    # The hub may be here; its process stays until all is told.
    await asyncio.Event().wait()


async def send(directory: str, messages: int) -> None:
    """Send to the channel or the group that is named, and say when the first one went."""
    layer = await own_loop(directory)
    await layer.new_channel()
    print("ready", flush=True)
    where = (await asyncio.to_thread(sys.stdin.readline)).strip()
    verb = layer.group_send if where == "room" else layer.send
    numbers = iter(range(messages))

    async def send_some() -> None:
        for number in numbers:
            await verb(where, {"type": "x", "number": number, "text": "x" * 74})

    began, used = time.monotonic(), time.process_time()
    await asyncio.gather(*(send_some() for _ in range(WINDOW)))
    print(began, time.process_time() - used, flush=True)
    await asyncio.Event().wait()


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
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    async def next_line(self) -> str:
        return await asyncio.to_thread(self.line)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._process.send_signal(number)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


# What is measured.


def measure_rate(verb: str, loop: str, messages: int) -> tuple[float, float, float]:
    """Messages a second; processor microseconds a message of the sender and of the reader.

    The first process is the hub, with its part in the figure of the one that it is.
    """
    with tempfile.TemporaryDirectory() as directory:
        arguments = ("--messages", str(messages), "--loop", loop)
        sender = Process("send", directory, *arguments)
        sender.line()
        reader = Process("count", directory, *arguments)
        channel = reader.line()
        sender.tell("room" if verb == "group" else channel)
        began, sending = map(float, sender.line().split())
        ended, reading = map(float, reader.line().split())
        reader.end()
        sender.end()
    return messages / (ended - began), sending / messages * 1e6, reading / messages * 1e6


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
        for node in ("nwriter", "nreader"):
            end = socket.socket(socket.AF_UNIX)
            end.connect(str(place.socket))
            hello = ("hello", VERSION, node, b"", False, os.getpid())
            end.sendall(msgpack.packb(hello) + msgpack.packb(("ready",)))
            ends.append(end)
        writer, reader = ends
        reader.sendall(msgpack.packb(("join", "room")))
        batch = msgpack.packb(("publish", "room", b"x" * 140)) * WINDOW
        time.sleep(0.2)
        writer.recv(65536)
        reader.recv(65536)
        unpacker, got = msgpack.Unpacker(), 0
        began = time.perf_counter()
        for _ in range(messages // WINDOW):
            writer.sendall(batch)
            got_before = got
            while got - got_before < WINDOW:
                unpacker.feed(reader.recv(1024 * 1024))
                got += sum(kind == "envelope" for kind, *_ in unpacker)
        seconds = time.perf_counter() - began
        for end in ends:
            end.close()
        hub.end()
    return got / seconds


def measure_one_way(loop: str, *, here: bool) -> tuple[float, float]:
    """Microseconds for one way, p50 and p99; the hub in one of the two or in a third process."""
    with tempfile.TemporaryDirectory() as directory:
        processes = []
        if not here:
            processes.append(Process("idle", directory, "--loop", loop))
            processes[0].line()
        asker = Process("ask", directory, "--loop", loop)
        asker.line()
        other = Process("echo", directory, "--loop", loop)
        asker.tell(other.line())
        middle, worst = map(float, asker.line().split())
        for process in (asker, other, *processes):
            process.end()
    return middle, worst


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


class Verdict:
    """Says how figures stand to their goals, and remembers.

    The goals are for the loop that our server and worker use: uvloop, where it is installed.
    """

    def __init__(self) -> None:
        self.all_met = True

    def __call__(self, is_met: bool, goal: str, loop: str) -> str:
        if loop != LOOPS[-1]:
            return ""
        self.all_met &= is_met
        return f"  goal {goal}: {'met' if is_met else 'MISSED'}"


def middle(values: list[float]) -> float:
    return statistics.median(values)


async def measure(messages: int, runs: int) -> bool:
    """Print all figures, medians of some runs; False if a goal is missed."""
    verdict = Verdict()
    for verb in ("group", "send"):
        for loop in LOOPS:
            found = [measure_rate(verb, loop, messages) for _ in range(runs)]
            rate, sending, reading = (middle([run[at] for run in found]) for at in range(3))
            print(
                f"{verb:<10} {rate:>10,.0f} messages/s, {sending:.1f} µs of processor to send one "
                f"(hub included), {reading:.1f} to receive it, {loop}"
                + verdict(rate >= RATE_GOAL, f"{RATE_GOAL:,}", loop)
            )
    for here in (True, False):
        for loop in LOOPS:
            trips = [measure_one_way(loop, here=here) for _ in range(runs)]
            p50, p99 = (middle([trip[at] for trip in trips]) for at in range(2))
            where = "in one of the two" if here else "in a third process"
            print(
                f"one way    {p50:>10.0f} µs p50, {p99:.0f} µs p99, hub {where}, {loop}"
                + verdict(p50 < ONE_WAY_GOAL, f"p50 below {ONE_WAY_GOAL:.0f} µs", loop)
            )
    rates = [await measure_transport(2 * messages) for _ in range(runs)]
    print(f"transport  {middle(rates):>10,.0f} messages/s")
    print(f"hub alone  {middle([measure_hub(4 * messages) for _ in range(runs)]):>10,.0f} frames/s")
    times = await measure_election(10)
    print(
        f"election   {statistics.median(times):>10.1f} ms median, {max(times):.1f} ms worst of 10"
        + verdict(max(times) <= ELECTION_GOAL, f"within {ELECTION_GOAL:.0f} ms", LOOPS[-1])
    )
    return verdict.all_met


def run(work: Any, loop: str) -> Any:
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - only where it is installed

        return uvloop.run(work)
    return asyncio.run(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--role", choices=["idle", "echo", "ask", "count", "send", "sink"])
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    if arguments.role is None:
        sys.exit(not run(measure(arguments.messages, arguments.runs), arguments.loop))
    counting: dict[str, Any] = {"count": count, "send": send, "sink": sink}
    if arguments.role in counting:
        work = counting[arguments.role](arguments.directory, arguments.messages)
    else:
        roles: dict[str, Any] = {"idle": idle, "echo": echo, "ask": ask}
        work = roles[arguments.role](arguments.directory)
    run(work, arguments.loop)


if __name__ == "__main__":
    main()
