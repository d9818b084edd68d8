"""What an awaited group_send over the local layer costs, and how long a crowd holds a loop.

    own loop      `await layer.group_send(...)` on the loop that owns the layer, as in a server
    another loop  the same on a loop that a thread of the layer's serves, as in `asyncio.run`
    bare          a message of as many octets over Unix sockets, through a relay to a reader; the
                  relay passes it on and then acknowledges it, as the hub does

Each is one message under way at a time, from one process through a second to a third, all held on
one processor, by turns.  A figure is what the three took of it, in microseconds a message, the
median of some turns; the ratio is to `bare` of the same turn.

    waiting       how long one member's 100,000 waiting messages keep the loop from others: the
                  longest time between two turns of the loop while they are received, in processor
                  milliseconds of its thread, with the garbage collector as in a server; over the
                  local layer they come at once, because the loop was blocked while another process
                  sent them

Ends with status 1 if a goal is missed.  Linux only.

    python benchmarks/local_cost.py [--messages 3000] [--turns 7] [--loop uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from channels.layers import InMemoryChannelLayer, LocalChannelLayer
from channels.layers.process.layer import NodeChannelLayer
from channels.server.garbage import Garbage
from channels.server.options import ServerOptions

OCTETS = 140
MESSAGE = {"type": "x", "text": "x" * 80}
WAITING = 100_000
#: Times a bare message and its acknowledgement.
OWN_GOAL = 4.0
OTHER_GOAL = 7.0
TURN_GOAL_MS = 5.0


# The other processes.


class Relay(asyncio.Protocol):
    """Passes on to the reader, which comes first, what a sender says, and acknowledges it."""

    reader: Relay | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if Relay.reader is None:
            Relay.reader = self

    def data_received(self, data: bytes) -> None:
        assert Relay.reader is not None
        Relay.reader.transport.write(data)
        self.transport.write(b"x")


async def relay(folder: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Relay, f"{folder}/relay")
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


class Sender(asyncio.Protocol):
    """Awaits an acknowledgement at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self) -> asyncio.Future[None]:
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(b"x" * OCTETS)
        return self.acknowledged

    def data_received(self, data: bytes) -> None:
        self.acknowledged.set_result(None)


async def bare_reader(folder: str) -> None:
    await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, f"{folder}/relay")
    print("ready", flush=True)
    await asyncio.Event().wait()


async def bare_sender(folder: str) -> None:
    loop = asyncio.get_running_loop()
    _, sender = await loop.create_unix_connection(Sender, f"{folder}/relay")
    await send_when_told(sender.send)


async def hub(folder: str) -> None:
    # Room for all that wait for a process that does not read.
    layer = LocalChannelLayer(directory=folder, peer_buffer=16 * WAITING * OCTETS)
    layer.adopt_loop()
    await layer.new_channel()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def reader(folder: str) -> None:
    layer = LocalChannelLayer(directory=folder)
    layer.adopt_loop()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print("ready", flush=True)
    while True:
        await layer.receive(channel)


async def sender(folder: str) -> None:
    layer = LocalChannelLayer(directory=folder)
    layer.adopt_loop()
    await send_when_told(lambda: layer.group_send("room", MESSAGE))


async def sender_elsewhere(folder: str) -> None:
    layer = LocalChannelLayer(directory=folder)
    await send_when_told(lambda: layer.group_send("room", MESSAGE))


async def send_when_told(send: Callable[[], Any]) -> None:
    """Send as many as a line of the standard input says, and say when it is done."""
    await send()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line)):
            await send()
        print("done", flush=True)


async def crowd(folder: str) -> None:
    """Send numbered messages, many at a time, as `send_when_told` sends one at a time."""
    layer = LocalChannelLayer(directory=folder)
    layer.adopt_loop()
    await layer.new_channel()
    print("ready", flush=True)
    for number in range(0, int(await asyncio.to_thread(sys.stdin.readline)), 200):
        await asyncio.gather(
            *(
                layer.group_send("room", {**MESSAGE, "number": each})
                for each in range(number, number + 200)
            )
        )
    print("done", flush=True)
    await asyncio.Event().wait()


ROLES = {
    "relay": relay,
    "bare-reader": bare_reader,
    "bare-sender": bare_sender,
    "hub": hub,
    "reader": reader,
    "sender": sender,
    "sender-elsewhere": sender_elsewhere,
    "crowd": crowd,
}


class Process:
    """One of them, held on the first processor."""

    def __init__(self, role: str, folder: str, loop: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role, "--folder", folder, "--loop", loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._expect("ready")

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        if (found := self._process.stdout.readline().strip()) != line:
            sys.exit(f"Expected {line!r} of a process, found {found!r}.")

    def send(self, messages: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{messages}\n")
        self._process.stdin.flush()
        self._expect("done")

    @property
    def processor_seconds(self) -> float:
        """Of all its threads."""
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


# What is measured.


def measure_cost(messages: int, turns: int, loop: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        started: list[Process] = []

        def start(role: str, loop: str = loop) -> Process:
            started.append(Process(role, folder, loop))
            return started[-1]

        try:
            bare = [start(role, "asyncio") for role in ("relay", "bare-reader", "bare-sender")]
            shared = [start("hub"), start("reader")]
            ways = {
                "bare": bare,
                "own loop": [*shared, start("sender")],
                "another loop": [*shared, start("sender-elsewhere")],
            }
            found: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(turns):
                for name, processes in ways.items():
                    before = sum(each.processor_seconds for each in processes)
                    processes[-1].send(messages)
                    used = sum(each.processor_seconds for each in processes) - before
                    found[name].append(used / messages * 1e6)
        finally:
            for process in started:
                process.end()
    is_met = True
    for name, goal in (("bare", None), ("own loop", OWN_GOAL), ("another loop", OTHER_GOAL)):
        ratio = statistics.median(
            mine / bare for mine, bare in zip(found[name], found["bare"], strict=True)
        )
        line = f"{name:<13} {statistics.median(found[name]):>6.1f} µs of processor"
        if goal is None:
            print(f"{line}, asyncio")
            continue
        is_met &= ratio <= goal
        verdict = "met" if ratio <= goal else "MISSED"
        print(f"{line}, {ratio:.2f} times bare, {loop}  goal {goal}: {verdict}")
    return is_met


async def longest_turn(layer: NodeChannelLayer, channel: str) -> float:
    """Processor milliseconds between two turns of the loop while all that waits is received."""
    turns = [time.thread_time()]

    async def beat() -> None:
        while True:
            turns.append(time.thread_time())
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    for number in range(WAITING):
        message = await layer.receive(channel)
        if message["number"] != number:
            raise RuntimeError(f"expected number {number}, found {message['number']}")
    turns.append(time.thread_time())
    beating.cancel()
    return max(later - former for former, later in itertools.pairwise(turns)) * 1e3


async def wait_in_memory(_: str) -> float:
    layer = InMemoryChannelLayer(capacity=WAITING)
    channel = await layer.new_channel()
    for number in range(WAITING):
        await layer.send(channel, {**MESSAGE, "number": number})
    return await longest_turn(layer, channel)


async def wait_for_the_hub(loop: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = [Process("hub", folder, loop)]
        layer = LocalChannelLayer(directory=folder, capacity=WAITING)
        layer.adopt_loop()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        started.append(Process("crowd", folder, loop))
        try:
            # This blocks the loop.
            started[-1].send(WAITING)
            return await longest_turn(layer, channel)
        finally:
            await layer.close()
            for process in started:
                process.end()


def measure_turns(loop: str) -> bool:
    is_met = True
    for name, work in (("in memory", wait_in_memory), ("at the hub", wait_for_the_hub)):
        with Garbage(ServerOptions().collect_after_objects).owned():
            longest = run(work(loop), loop)
        is_met &= longest <= TURN_GOAL_MS
        verdict = "met" if longest <= TURN_GOAL_MS else "MISSED"
        print(
            f"waiting       {longest:>6.2f} ms of processor between two turns at most, {WAITING:,} "
            f"{name}, {loop}  goal {TURN_GOAL_MS}: {verdict}"
        )
    return is_met


def run(work: Any, loop: str) -> Any:
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - only where it is installed

        return uvloop.run(work)
    return asyncio.run(work)


def main() -> None:
    loops = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--loop", choices=loops, default=loops[-1])
    parser.add_argument("--role", choices=list(ROLES))
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    if arguments.role is not None:
        os.sched_setaffinity(0, {0})
        run(ROLES[arguments.role](arguments.folder), arguments.loop)
        return
    is_cheap = measure_cost(arguments.messages, arguments.turns, arguments.loop)
    is_fair = measure_turns(arguments.loop)
    sys.exit(not (is_cheap and is_fair))


if __name__ == "__main__":
    main()
