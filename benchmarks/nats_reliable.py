"""What `reliable` costs on NATS: a sender and a receiver, each a process, one group.

    python -m benchmarks.nats_reliable

Starts a NATS server of its own on a free port.  CPU is user and system time: of the sender's
process and the receiver's for a message of 100 characters, and of the server for it.  Sends are
made one after the other, then 50 at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from channels.layers import NatsChannelLayer

COUNT: Final = 3000
TOGETHER: Final = 50
MESSAGE: Final = {"type": "x", "text": "y" * 100}


def layer_at(port: int, reliable: bool) -> NatsChannelLayer:
    layer = NatsChannelLayer(
        f"nats://127.0.0.1:{port}", f"cost-{reliable}", reliable=reliable, capacity=100_000
    )
    layer.adopt_loop()
    return layer


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """A NATS server: (its port, its process's number)."""
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield port, process.pid
            finally:
                process.terminate()


def server_seconds(number: int) -> float:
    with open(f"/proc/{number}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def receive(port: int, reliable: bool) -> None:
    """The receiver's process."""
    layer = layer_at(port, reliable)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print("ready", flush=True)
    await layer.receive(channel)
    before = time.process_time()
    for _ in range(2 * COUNT):
        await layer.receive(channel)
    print(json.dumps((time.process_time() - before) / (2 * COUNT)), flush=True)
    await layer.close()


async def measure(port: int, pid: int, reliable: bool) -> dict[str, Any]:
    layer = layer_at(port, reliable)
    await layer.new_channel()
    command = [sys.executable, "-m", "benchmarks.nats_reliable", str(port), str(int(reliable))]
    receiver = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert receiver.stdout is not None
    await receiver.stdout.readline()
    await layer.group_send("room", MESSAGE)
    times, cpu, at_server = [], time.process_time(), server_seconds(pid)
    for _ in range(COUNT):
        began = time.perf_counter()
        await layer.group_send("room", MESSAGE)
        times.append(time.perf_counter() - began)
    alone, cpu = time.process_time() - cpu, time.process_time()
    for _ in range(COUNT // TOGETHER):
        await asyncio.gather(*(layer.group_send("room", MESSAGE) for _ in range(TOGETHER)))
    together = time.process_time() - cpu
    received = float(await asyncio.wait_for(receiver.stdout.readline(), 60))
    at_server = server_seconds(pid) - at_server
    await receiver.wait()
    await layer.close()
    return {
        "layer": "reliable" if reliable else "plain",
        "median send (us)": f"{sorted(times)[COUNT // 2] * 1e6:.0f}",
        "sender's CPU (us)": f"{alone / COUNT * 1e6:.0f}",
        "50 at a time (us)": f"{together / COUNT * 1e6:.0f}",
        "receiver's CPU (us)": f"{received * 1e6:.0f}",
        "server's CPU (us)": f"{at_server / (2 * COUNT) * 1e6:.0f}",
    }


def main() -> None:
    if len(sys.argv) == 3:
        asyncio.run(receive(int(sys.argv[1]), sys.argv[2] == "1"))
        return
    print(f"Load: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    with server() as (port, pid):
        time.sleep(1.0)
        for number in range(6):
            row = asyncio.run(measure(port, pid, bool(number % 2)))
            if not number:
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
