"""What a consumer in a worker costs more than one in the server's own process.

    script/bench decoupled                    every case
    script/bench decoupled event --rounds 9   one case, more rounds

One client has one message under way (`event`), or a hundred have one each (`rate`); `idle` is the
memory of a connection in each process.  The edge and its worker run as `channels interface` and
`runworker`, the server in one process as `channels serve`, all with the same consumer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.layers.redis_server import Redis
from benchmarks.run import (
    BUILD,
    QUIET,
    ROOT,
    Case,
    Site,
    build,
    drive,
    on_processor,
    ours,
    running,
)

#: Of an event with its reply, over what it costs in one process: so many relayed messages.
EVENT_GOAL = 5.0
#: Of the echo rate in one process.
RATE_GOAL = 0.5
#: KiB of an idle connection.
EDGE_KIB_GOAL, WORKER_KIB_GOAL = 12.0, 6.0
#: Over Redis: so many round trips of the layer.
REDIS_GOAL = 2.0

ECHO = "/ws/echo/"
EVENT = Case("event", "", "echo", ECHO, "/echo", 1)
RATE = Case("rate", "", "echo", ECHO, "/echo", 100)
IDLE = Case("idle", "", "connect", ECHO, "/all", 2000, row="connect")
WARM_UP = Case("warm-up", "", "echo", ECHO, "/echo", 20)
RELAYED = 3000
LOCAL = "channels.layers.LocalChannelLayer"


@contextmanager
def in_one_process(pinned: bool) -> Iterator[Site]:
    """A server that runs the consumer itself."""
    with running(ours().command, ROOT / "src", BUILD / "serve.log", is_pinned=pinned) as found:
        yield found


@contextmanager
def decoupled(layer: dict[str, Any], link: str, *, pinned: bool) -> Iterator[tuple[Site, int, int]]:
    """An edge and its worker: the site, and the two processes."""
    os.environ["BENCHMARK_LAYER"] = json.dumps(layer)
    edge = (sys.executable, "-m", "channels", "interface", "-v", "0", "-p", "{port}", *QUIET[:2])
    work = [sys.executable, "-m", "django", "runworker", "-v", "0", "--link", link]
    work += ["--max-connections", "5000"]
    settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.decoupled_settings"}
    command = (*edge, "--link", link)
    with (
        running(command, ROOT / "src", BUILD / "edge.log", settings, is_pinned=pinned) as site,
        (BUILD / "worker.log").open("wb") as output,
    ):
        worker = subprocess.Popen(
            on_processor(0, work) if pinned else work,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, **settings, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        try:
            await_worker(site.port)
            edge_process, *rest = site.pids
            yield Site(site.port, (edge_process, *rest, worker.pid)), edge_process, worker.pid
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)


def await_worker(port: int) -> None:
    """Until a handshake is answered with 101."""
    request = (
        f"GET {ECHO} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(request)
            if b" 101 " in client.recv(1000):
                return
        time.sleep(0.5)
    sys.exit("No worker takes a connection: see worker.log")


@contextmanager
def relay() -> Iterator[Callable[[], float]]:
    """What measures the processor time of one relayed message and its acknowledgement."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/relay"
        command = on_processor(0, [sys.executable, "-m", "benchmarks.relay", path])
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            with ExitStack() as stack:
                first, second = (stack.enter_context(dial(path)) for _ in range(2))
                yield lambda: relayed(first, second, process.pid)
        finally:
            process.terminate()
            process.wait()


def dial(path: str) -> socket.socket:
    """A connection to a Unix socket that is about to be there."""
    for _ in range(200):
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
        except OSError:
            client.close()
            time.sleep(0.05)
        else:
            return client
    sys.exit("The relay does not listen.")


def relayed(first: socket.socket, second: socket.socket, pid: int) -> float:
    before = processor_seconds(pid)
    for _ in range(RELAYED):
        first.send(b"x" * 100)
        second.recv(1000)
        second.send(b"x")
        first.recv(1000)
    return (processor_seconds(pid) - before) / RELAYED * 1e6


def processor_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def local(folder: str) -> dict[str, Any]:
    return {"BACKEND": LOCAL, "CONFIG": {"directory": folder}}


def event(rounds: int) -> bool:
    """Processor time of an event with its reply: all processes on one processor, by turns."""
    with ExitStack() as stack:
        alone = stack.enter_context(in_one_process(pinned=True))
        one, other = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        both, _, _ = stack.enter_context(decoupled(local(one), "auto", pinned=True))
        layered, _, _ = stack.enter_context(decoupled(local(other), "layer", pinned=True))
        measure_relay = stack.enter_context(relay())
        sites = {"one process": alone, "socket": both, "local layer": layered}
        found: dict[str, list[float]] = {name: [] for name in (*sites, "relay")}
        for site in sites.values():
            drive(site, WARM_UP, ECHO, 1, 0.5)
        for _ in range(rounds):
            for name, site in sites.items():
                found[name].append(drive(site, EVENT, ECHO, 1, 0.5)["cpu_us"])
            found["relay"].append(measure_relay())
    us = {name: statistics.median(each) for name, each in found.items()}
    is_met = True
    for name in ("socket", "local layer"):
        more = us[name] - us["one process"]
        ratio = more / us["relay"]
        goal = EVENT_GOAL if name == "socket" else None
        is_met &= goal is None or ratio <= goal
        row(
            "event", name, us=us[name], one_process_us=us["one process"], more_us=more,
            relay_us=us["relay"], ratio=ratio, goal=goal or "",
        )  # fmt: skip
    return is_met


def rate(rounds: int) -> bool:
    """Echoes in a second of a hundred connections, by turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        alone = stack.enter_context(in_one_process(pinned=False))
        both, _, _ = stack.enter_context(decoupled(local(folder), "auto", pinned=False))
        found: dict[str, list[float]] = {"one": [], "two": []}
        for _ in range(rounds):
            for name, site in (("one", alone), ("two", both)):
                found[name].append(drive(site, RATE, ECHO, 1, 0.7)["rate"])
    one, two = (statistics.median(found[name]) for name in ("one", "two"))
    row("rate", "socket", per_second=two, one_process=one, ratio=two / one, goal=RATE_GOAL)
    return two / one >= RATE_GOAL


def idle(rounds: int) -> bool:
    """KiB of resident memory that a connection takes in each process."""
    is_met = True
    for name, number, goal in (("edge", 1, EDGE_KIB_GOAL), ("worker", 2, WORKER_KIB_GOAL)):
        with (
            tempfile.TemporaryDirectory() as folder,
            decoupled(local(folder), "auto", pinned=False) as found,
        ):
            site = Site(found[0].port, (found[number],))
            drive(site, WARM_UP, ECHO, 1, 0.5)
            kib = drive(site, IDLE, ECHO, 1, 0.5)["kib_each"]
        row("idle", name, kib=kib, goal=goal)
        is_met &= kib <= goal
    return is_met


def redis(rounds: int) -> bool:
    """The time of an event with its reply over Redis, beside a round trip of its layer."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Redis(Path(folder))
        broker.start()
        try:
            layer = {"BACKEND": "channels.layers.RedisChannelLayer", "CONFIG": broker.config}
            with (
                decoupled(layer, "layer", pinned=False) as (site, _, _),
                in_one_process(pinned=False) as alone,
            ):
                drive(site, WARM_UP, ECHO, 1, 0.5)
                found = [drive(site, EVENT, ECHO, 1, 0.7)["p50_ms"] for _ in range(rounds)]
                one = [drive(alone, EVENT, ECHO, 1, 0.7)["p50_ms"] for _ in range(rounds)]
        finally:
            broker.close()
    command = [sys.executable, "-m", "benchmarks.layers", "roundtrip", "--layer", "redis", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    trips = [json.loads(line) for line in done.stdout.splitlines()]
    trip = next(each["layer us"] for each in trips if "layer us" in each)
    us = statistics.median(found) * 1000
    ratio = us / trip
    row(
        "redis", "layer", p50_us=us, one_process_us=statistics.median(one) * 1000,
        layer_us=trip, ratio=ratio, goal=REDIS_GOAL,
    )  # fmt: skip
    return ratio <= REDIS_GOAL


def row(case: str, way: str, **figures: float | str) -> None:
    shown = (
        f"{name.replace('_', ' ')} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )
    print(f"| {case} | {way} | " + " | ".join(shown) + " |", flush=True)


CASES: dict[str, Callable[[int], bool]] = {
    "event": event,
    "rate": rate,
    "idle": idle,
    "redis": redis,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, of which the median")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(CASES):
        parser.error(f"no case is named {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    build()
    results = [CASES[name](chosen.rounds) for name in chosen.cases or CASES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
