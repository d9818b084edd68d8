"""Measure servers beside the C limit, in the same minute, and print ratios.

    script/bench                              every case, ours
    script/bench tutorial echo                some cases
    script/bench --peer daphne=/path/to/venv  another Channels beside it, from its own environment

A ratio compares two processes that ran one after the other on the same processor: it means
something where a time of its own does not.  What is compared is the processor time of the server,
all its children included, for each delivery, echo, connection or request.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = Path(tempfile.gettempdir()) / f"channels-bench-{os.getuid()}"
START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured: how the load client is called, and the goal, if there is one."""

    name: str
    about: str
    mode: str
    path: str
    limit_path: str
    connections: int
    window: int = 1
    #: The most that our ratio may be.
    goal: float | None = None
    #: False where the peer has no such thing.
    for_peers: bool = True
    #: The row of the load client that counts, and the key in it.
    row: str = ""
    key: str = "cpu_us"


CHAT, BROADCAST = "/ws/chat/bench/", "/ws/broadcast/bench/"
CASES = [
    Case(
        "tutorial",
        "group_send to a consumer that encodes JSON for each recipient; per delivery",
        "fanout", CHAT, "/all", 1000, goal=4.0,
    ),
    Case(
        "tutorial-100", "the same with 100 connections", "fanout", CHAT, "/all", 100
    ),
    Case(
        "broadcast", "group_send of a ready websocket.send; per delivery",
        "fanout", BROADCAST, "/all", 1000, for_peers=False,
    ),
    Case(
        "broadcast-8", "the same with eight messages under way",
        "fanout", BROADCAST, "/all", 1000, window=8, for_peers=False,
    ),
    Case("echo", "a message to its sender; per message", "echo", "/ws/echo/", "/echo", 100),
    Case(
        "connect", "handshake, consumer, group_add; per connection",
        "connect", CHAT, "/all", 2000, row="connect",
    ),
    Case(
        "idle", "resident memory in KiB; per connection",
        "connect", CHAT, "/all", 2000, row="connect", key="kib_each",
    ),
    Case("http", "hello, world without Django; per request", "http", "/hello", "/hello", 50),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contender:
    """A server: its name and its command, with {port} to be filled in."""

    name: str
    command: tuple[str, ...]
    source: Path


def ours() -> Contender:
    serve = ("-m", "channels", "serve", "-v", "0", "-p", "{port}", *QUIET)
    return Contender("channels", (sys.executable, *serve), ROOT / "src")


#: No server writes an access log here: that would measure the log.
QUIET = ("--access-log", "none", "benchmarks.asgi:application")
PEERS = {
    "daphne": ("-m", "daphne", "-v", "0", "-p", "{port}", "benchmarks.asgi:application"),
    "uvicorn": (
        *("-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port", "{port}"),
        "benchmarks.asgi:application",
    ),
}  # fmt: skip


def peer(text: str) -> Contender:
    """A peer from NAME=ENVIRONMENT, the folder of a virtual environment."""
    name, _, folder = text.partition("=")
    if name not in PEERS or not folder:
        known = ", ".join(PEERS)
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FOLDER with NAME in {known}")
    python = str(Path(folder) / "bin" / "python")
    return Contender(name, (python, *PEERS[name]), Path())


def build() -> None:
    """Compile the load client and the limit, where they are older than their source."""
    BUILD.mkdir(exist_ok=True)
    for name, libraries in (("load", ()), ("limit", ("-lcrypto",))):
        source, binary = HERE / f"{name}.c", BUILD / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            warnings = ("-Wall", "-Wextra", "-O2")
            subprocess.run(["gcc", *warnings, "-o", binary, source, *libraries], check=True)


def on_processor(number: int, command: Sequence[str]) -> list[str]:
    """The command, held on one processor where the machine has several."""
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        return ["taskset", "-c", str(allowed[number % len(allowed)]), *command]
    return list(command)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += family(int(child))
    return found


@dataclass(frozen=True, slots=True)
class Site:
    """What serves the clients: its port, and the processes that count."""

    port: int
    pids: tuple[int, ...]


@contextmanager
def running(
    command: Sequence[str],
    source: Path,
    log: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    is_pinned: bool = True,
) -> Iterator[Site]:
    """A server while it runs, on the first processor if it is pinned.

    Raises:
        SystemExit: If it ends, or does not listen within half a minute.
    """
    port = free_port()
    filled = [part.replace("{port}", str(port)) for part in command]
    path = os.pathsep.join(str(part) for part in (source, ROOT) if part != Path())
    with log.open("wb") as output:
        process = subprocess.Popen(
            on_processor(0, filled) if is_pinned else filled,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
                **environment,
            },
            start_new_session=True,
        )
    try:
        await_listener(process, port, log)
        yield Site(port, tuple(family(process.pid)))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def await_listener(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"The server ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"The server did not listen within {START_SECONDS} s: see {log}")


def drive(site: Site, case: Case, path: str, rounds: int, seconds: float) -> Any:
    """Run the load client; the middle of its rounds as {key: value}.

    Raises:
        SystemExit: If a message was lost, doubled or out of order.
    """
    command = [str(BUILD / "load"), "-p", str(site.port), "-m", case.mode, "-u", path]
    command += ["-n", str(case.connections), "-w", str(case.window)]
    command += ["-r", str(rounds), "-d", str(seconds)]
    command += [part for each in site.pids for part in ("-P", str(each))]
    done = subprocess.run(
        on_processor(1, command), capture_output=True, check=False, text=True, timeout=300
    )
    if done.returncode:
        sys.exit(f"{case.name}: {done.stderr.strip()}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    chosen = [row for row in rows if row["phase"] == (case.row or case.mode)]
    keys = [key for key in chosen[0] if key != "phase"]
    return {key: statistics.median(row[key] for row in chosen) for key in keys}


def measure_limit(case: Case) -> float:
    command = (str(BUILD / "limit"), "{port}")
    with running(command, Path(), BUILD / "limit.log") as site:
        found = drive(site, case, case.limit_path, 2, 0.6)
    return float(found[case.key])


def measure(contender: Contender, case: Case, seconds: float) -> dict[str, Any]:
    """The case under the server, between two runs of the limit."""
    before = measure_limit(case)
    with running(contender.command, contender.source, BUILD / f"{contender.name}.log") as site:
        warm_up = Case("warm-up", "", case.mode, case.path, "", 20)
        drive(site, warm_up, case.path, 1, 0.3)
        result = drive(site, case, case.path, 3, seconds)
    limit = statistics.fmean((before, measure_limit(case)))
    answer = {"server": contender.name, "case": case.name, "limit": round(limit, 2)}
    answer |= {"cost": round(result[case.key], 2), "rate": round(result["rate"])}
    answer |= {"p50_ms": round(result["p50_ms"], 2), "p99_ms": round(result["p99_ms"], 2)}
    if case.key == "cpu_us":
        answer["ratio"] = round(result[case.key] / limit, 2)
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--json", action="store_true", help="one object per line, no table")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(names):
        parser.error(f"no case is named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    build()
    missed = 0
    if not chosen.json:
        print("| case | server | cost | C limit | ratio | goal | per second | p50 ms | p99 ms |")
        print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        if chosen.cases and case.name not in chosen.cases:
            continue
        for contender in [ours(), *(chosen.peer if case.for_peers else [])]:
            result = measure(contender, case, chosen.seconds)
            is_ours = contender.name == "channels"
            goal = case.goal if is_ours else None
            missed += goal is not None and result["ratio"] > goal
            show(result, goal, as_json=chosen.json)
    return 1 if missed else 0


def show(result: dict[str, Any], goal: float | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result), flush=True)
        return
    cells = [result["case"], result["server"], result["cost"], result["limit"]]
    cells += [result.get("ratio", ""), goal or "", result["rate"]]
    cells += [result["p50_ms"], result["p99_ms"]]
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
