"""The process under attack: a server, the probe application, and a line to the test.

    python -m tests.hostile.serve SERVER LISTENING_FD CONTROL_FD OPTIONS_AS_JSON

The test hands over a listening socket, so that nobody races for a port, and one end of a socket
pair.  Over that line it asks, one JSON object a line, what the application saw and what is alive.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from channels.server.watchdog import LoopStall, Watchdog
from tests.hostile.application import ProbeApplication

ACCESS = "access"


class Tally(logging.Handler):
    """Counts what is logged, and keeps the last tracebacks for the test's message."""

    def __init__(self) -> None:
        super().__init__()
        self.tracebacks: list[str] = []
        self.bytes = 0
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.name != ACCESS:
            # A line for each request is as it should be; more than that is what floods a log.
            self.bytes += len(line)
        self.lines.append(line)
        del self.lines[:-100]
        if record.exc_info:
            self.tracebacks.append(line)
            del self.tracebacks[:-100]


#: What a turn of the loop may take, in seconds of its thread's processor time.
LONGEST_TURN_SECONDS = 0.1


class ControlLine:
    """Answers the test's questions from inside the server's own loop, which it watches."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.held: list[str] = []
        self.tally = Tally()
        logging.basicConfig(level=logging.INFO, handlers=[self.tally, logging.StreamHandler()])
        self.application = ProbeApplication(on_startup=self.open)
        self.task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        Watchdog(LONGEST_TURN_SECONDS, self.on_held, by_cpu=True).start()
        reader, writer = await asyncio.open_connection(sock=self.line)
        self.task = asyncio.create_task(self.answer(reader, writer), name="control line")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            asked = json.loads(question)
            reply = getattr(self, asked.pop("ask"))(**asked)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()

    def on_held(self, held: LoopStall) -> None:
        """Note that a client kept the loop from turning; what the tests themselves ask may."""
        if not any(frame.filename == __file__ for frame in held.stack[-3:]):
            stack = "".join(traceback.format_list(held.stack))
            self.held.append(f"{held.cpu_seconds:.3f} s by {held.place}\n{stack}")

    def seen(self, port: int) -> list[str]:
        return self.application.seen.get(port, [])

    def forget(self) -> None:
        self.application.seen.clear()
        self.tally.tracebacks.clear()
        self.tally.lines.clear()
        self.tally.bytes = 0

    def everything_seen(self) -> dict[str, list[str]]:
        return {str(port): notes for port, notes in self.application.seen.items()}

    def state(self) -> dict[str, Any]:
        gc.collect()
        return {
            "tasks": sorted(str(task.get_coro()) for task in asyncio.all_tasks()),
            "descriptors": len(os.listdir("/dev/fd")),
            "resident_bytes": resident_bytes(),
            "cpu_seconds": time.process_time(),
            "tracebacks": self.tally.tracebacks,
            "log_bytes": self.tally.bytes,
            "log": self.tally.lines,
            "held": self.held,
        }


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system has no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def run_ours(application: Any, listening: int, options: dict[str, dict[str, Any]]) -> None:
    from channels.kit.limits import Limits, Timeouts
    from channels.server import Server
    from channels.server.access_log import AccessLog
    from channels.server.endpoints import parse_endpoint
    from channels.server.options import ServerOptions

    chosen = ServerOptions(
        limits=Limits(**options.get("limits", {})), timeouts=Timeouts(**options.get("timeouts", {}))
    )
    if tls := options.get("tls"):
        files = f"privateKey={tls['key']}:certKey={tls['certificate']}"
        endpoint = f"ssl:{tls['port']}:interface=127.0.0.1:{files}"
    else:
        endpoint = f"fd:fileno={listening}"
    access_log = AccessLog(logging.getLogger(ACCESS))
    Server(application, [parse_endpoint(endpoint)], chosen, access_log).run()


def run_uvicorn(application: Any, listening: int, options: dict[str, dict[str, Any]]) -> None:
    import uvicorn

    timeouts = options.get("timeouts", {})
    config = uvicorn.Config(
        application,
        log_config=None,
        timeout_keep_alive=int(timeouts.get("keep_alive", 5)) or 1,
        ws_ping_interval=timeouts.get("ping_interval", 20.0),
        ws_ping_timeout=timeouts.get("ping_timeout", 20.0),
        ws_max_size=options.get("limits", {}).get("max_message_bytes", 1 << 20),
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[socket.socket(fileno=listening)]))


SERVERS = {"channels": run_ours, "uvicorn": run_uvicorn}


def main() -> None:
    server, listening, control, options = sys.argv[1:]
    line = ControlLine(socket.socket(fileno=int(control)))
    SERVERS[server](line.application, int(listening), json.loads(options))


if __name__ == "__main__":
    main()
