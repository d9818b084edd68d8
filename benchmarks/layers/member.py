"""One process of a case: `python -m benchmarks.layers.member '<settings as JSON>'`.

It runs in any environment, ours or a peer's: the layer is made from its dotted name, and nothing
but the verbs that every layer has is called.  It is told "go" and "stop" by lines on its standard
input, and answers in lines of JSON: {"ready": ...} and {"result": ...}.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import mmap
import statistics
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync

from benchmarks.layers import roundtrip

Settings = Mapping[str, Any]
#: A call that takes longer is counted as failed.
CALL_SECONDS = 15.0
COUNT = struct.Struct("=Q")


class Gauge:
    """A number in a file, which another process sees at once."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(COUNT.pack(0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNT.size)

    @property
    def value(self) -> int:
        number: int = COUNT.unpack_from(self._memory)[0]
        return number

    def add(self) -> None:
        """One more; only one process writes."""
        COUNT.pack_into(self._memory, 0, self.value + 1)


def make_layer(settings: Settings) -> Any:
    if settings["databases"] is not None:
        configure_django(settings["databases"])
    module, _, name = settings["layer"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**settings["config"])


def configure_django(databases: Mapping[str, Any]) -> None:
    import django  # noqa: PLC0415 - only some layers need it
    from django.conf import settings  # noqa: PLC0415

    settings.configure(DATABASES=databases)
    django.setup()


async def close_layer(layer: Any) -> None:
    """End it as far as it offers to."""
    if hasattr(layer, "close"):
        await layer.close()


def say(name: str, value: Any) -> None:
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


def word() -> str:
    """What the other side says next; "" when it has gone."""
    return sys.stdin.readline().strip()


async def read(settings: Settings, gauge: Gauge) -> dict[str, Any]:
    """Read a channel, or as a member of a group, until told to stop."""
    layer = make_layer(settings)
    channel = settings.get("channel")
    if channel is None:
        channel = await layer.new_channel()
        await layer.group_add(settings["group"], channel)
    marks: list[int] = []
    times: list[float] = []
    errors: Counter[str] = Counter()

    async def read_on() -> None:
        while True:
            try:
                message = await layer.receive(channel)
            except Exception as error:
                # A consumer would have ended here; the case goes on and counts.
                errors[type(error).__name__] += 1
                await asyncio.sleep(0.01)
                continue
            marks.append(message["mark"])
            times.append(time.monotonic())
            gauge.add()

    task = asyncio.create_task(read_on())
    say("ready", True)
    await asyncio.to_thread(word)
    task.cancel()
    await asyncio.wait([task], timeout=CALL_SECONDS)
    await close_layer(layer)
    return {"marks": marks, "times": times, "errors": errors}


async def write(settings: Settings, gauge: Gauge) -> dict[str, Any]:
    """Send so many messages one after the other, `burst` at once and then a pause."""
    layer = make_layer(settings)
    send, name = layer.send, settings.get("channel")
    if name is None:
        send, name = layer.group_send, settings["group"]
    failed: list[int] = []
    errors: Counter[str] = Counter()
    say("ready", True)
    await asyncio.to_thread(word)
    begun = time.monotonic()
    for mark in range(settings["count"]):
        if mark % settings["burst"] == 0:
            await asyncio.sleep(settings["pause"])
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await send(name, {"type": "bench.message", "mark": mark})
        except Exception as error:
            errors[type(error).__name__] += 1
            failed.append(mark)
        else:
            gauge.add()
    seconds = time.monotonic() - begun
    say("sent", True)
    # What it has not yet handed to the broker must not end with it.
    await asyncio.to_thread(word)
    await close_layer(layer)
    return {"failed": failed, "errors": errors, "seconds": seconds}


def call(settings: Settings, gauge: Gauge) -> dict[str, Any]:
    """group_send from plain threads without a loop, one thread after the other."""
    layer = make_layer(settings)
    send: Callable[[str, Any], None]
    send = layer.sync.group_send if settings["facade"] else async_to_sync(layer.group_send)
    failed: list[int] = []
    errors: Counter[str] = Counter()
    times: list[float] = []
    each = settings["count"] // settings["threads"]

    def work(first: int) -> None:
        for mark in range(first, first + each):
            begun = time.monotonic()
            try:
                send(settings["group"], {"type": "bench.message", "mark": mark})
            except Exception as error:
                errors[type(error).__name__] += 1
                failed.append(mark)
            else:
                gauge.add()
            times.append(time.monotonic() - begun)

    empty = 0.0 if settings["facade"] else empty_call()
    say("ready", True)
    word()
    cpu = time.process_time()
    for number in range(settings["threads"]):
        thread = threading.Thread(target=work, args=(number * each,))
        thread.start()
        thread.join()
    cpu = time.process_time() - cpu
    say("sent", True)
    word()
    async_to_sync(close_layer)(layer)
    return {
        "failed": failed,
        "errors": errors,
        "mean_ms": 1000 * statistics.fmean(times),
        "p50_ms": 1000 * statistics.median(times),
        "cpu_ms": 1000 * cpu / len(times),
        "empty_ms": empty,
    }


def empty_call(calls: int = 100) -> float:
    """Milliseconds of `async_to_sync` around nothing: what no layer can save."""

    async def nothing() -> None:
        pass

    work = async_to_sync(nothing)
    begun = time.monotonic()
    for _ in range(calls):
        work()
    return 1000 * (time.monotonic() - begun) / calls


class Crowd:
    """Members in one process, each reading its channel in a task of its own."""

    def __init__(self, layer: Any, members: int) -> None:
        self._layer = layer
        self._members = members
        self._arrived = 0
        self._all = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, group: str) -> None:
        for _ in range(self._members):
            channel = await self._layer.new_channel()
            await self._layer.group_add(group, channel)
            self._tasks.append(asyncio.create_task(self._read(channel)))

    async def send(self, group: str) -> int:
        """One message; how many members have it, once all do or none has come for a while."""
        self._arrived = 0
        self._all.clear()
        await self._layer.group_send(group, {"type": "bench.message", "text": "x" * 100})
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._all.wait()
        except TimeoutError:
            pass
        return self._arrived

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=CALL_SECONDS)

    async def _read(self, channel: str) -> None:
        while True:
            await self._layer.receive(channel)
            self._arrived += 1
            if self._arrived == self._members:
                self._all.set()


class Bare:
    """As many tasks, each waiting for a future: the least that waking a crowd can cost."""

    def __init__(self, members: int) -> None:
        loop = asyncio.get_running_loop()
        self._futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(members)]
        self._arrived = 0
        self._all = asyncio.Event()
        self._tasks = [asyncio.create_task(self._wait(number)) for number in range(members)]

    async def wake(self) -> None:
        self._arrived = 0
        self._all.clear()
        for future in self._futures:
            future.set_result(None)
        await self._all.wait()

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=CALL_SECONDS)

    async def _wait(self, number: int) -> None:
        while True:
            await self._futures[number]
            self._futures[number] = asyncio.get_running_loop().create_future()
            self._arrived += 1
            if self._arrived == len(self._futures):
                self._all.set()


async def bare_us(members: int, rounds: int) -> float:
    """Processor microseconds of a member of a bare crowd."""
    bare = Bare(members)
    await asyncio.sleep(0)
    for _ in range(2):
        await bare.wake()
    cpu = time.process_time()
    for _ in range(rounds):
        await bare.wake()
    cpu = time.process_time() - cpu
    await bare.leave()
    return 1e6 * cpu / (rounds * members)


class Collector:
    """What the garbage collector takes of the processor time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0.0
        gc.callbacks.append(self._on_phase)

    def _on_phase(self, phase: str, _: Mapping[str, int]) -> None:
        if phase == "start":
            self._begun = time.process_time()
        else:
            self.seconds += time.process_time() - self._begun


async def fan_out(settings: Settings, gauge: Gauge) -> dict[str, Any]:
    """group_send to many members in this process, the next when all have the one before."""
    layer = make_layer(settings)
    crowd = Crowd(layer, settings["members"])
    await crowd.join(settings["group"])
    for _ in range(2):
        await crowd.send(settings["group"])
    say("ready", True)
    await asyncio.to_thread(word)
    collector = Collector()
    cpu, begun, arrived = time.process_time(), time.monotonic(), 0
    for _ in range(settings["count"]):
        arrived += await crowd.send(settings["group"])
        gauge.add()
    cpu, seconds = time.process_time() - cpu, time.monotonic() - begun
    collecting = collector.seconds
    say("sent", True)
    await asyncio.to_thread(word)
    await crowd.leave()
    await close_layer(layer)
    expected = settings["count"] * settings["members"]
    return {
        "lost": expected - arrived,
        "cpu_us": 1e6 * cpu / expected,
        "collecting_us": 1e6 * collecting / expected,
        "bare_us": await bare_us(settings["members"], settings["count"]),
        "ms": 1000 * seconds / settings["count"],
    }


async def echo(settings: Settings, gauge: Gauge) -> None:
    await roundtrip.echo(make_layer(settings), settings, say)


async def there_and_back(settings: Settings, gauge: Gauge) -> dict[str, Any]:
    """Round trips to the process that is named when it begins."""
    layer = make_layer(settings)
    say("ready", True)
    found = await roundtrip.measure(layer, settings, await asyncio.to_thread(word))
    say("sent", True)
    await asyncio.to_thread(word)
    await close_layer(layer)
    return found


def host(settings: Settings, gauge: Gauge) -> None:
    """Be the first to use the layer, and stay until killed."""
    layer = make_layer(settings)
    async_to_sync(layer.group_send)("host", {"type": "bench.message"})
    if settings["is_first"] and not layer.is_hub:
        raise SystemExit("The first process of the layer is not its hub.")
    gauge.add()
    threading.Event().wait()


def main() -> None:
    settings = json.loads(sys.argv[1])
    gauge = Gauge(Path(settings["gauge"]))
    if settings["role"] == "call":
        say("result", call(settings, gauge))
        return
    if settings["role"] == "host":
        host(settings, gauge)
        return
    if settings["role"] == "echo":
        asyncio.run(echo(settings, gauge))
        return
    roles = {"read": read, "write": write, "fan_out": fan_out, "there_and_back": there_and_back}
    say("result", asyncio.run(roles[settings["role"]](settings, gauge)))


if __name__ == "__main__":
    main()
