"""Run the Autobahn TestSuite against an echo application on our server; exit 0 if it is all OK.

    python -m compliance.autobahn.run --wstest WSTEST [--cases 1-7,10 | 9 | sample | all] [--http2]

WSTEST is the program of `autobahntestsuite`, which needs Python 2.7 (see README.md beside this
file for how to get it).  With --http2 each of its sockets becomes a stream of HTTP/2 (`relay.py`).
The report's pages stay in --report (default: a temporary folder).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from compliance.autobahn.relay import relaying

from channels.kit.limits import MIB, Limits
from channels.server import Server, ServerOptions, parse_endpoint

#: Name -> the suite's case patterns.
CASES = {
    "1-7,10": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
    "9": ["9.*"],
    "1-10": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"],
    # Each payload of group 12 and each parameter set of group 13, small and large.
    "sample": [
        *(f"12.1.{number}" for number in range(1, 19)),
        *("12.2.1", "12.2.2", "12.2.10", "12.2.18", "12.3.1", "12.3.9"),
        *("12.4.5", "12.4.18", "12.5.3", "12.5.17"),
        *(f"13.{group}.{number}" for group in range(1, 8) for number in (1, 10)),
        "13.7.18",
    ],
    "12,13": ["12.*", "13.*"],
    "all": ["*"],
}
#: Group 9 sends messages of 16 MiB, and 4 MiB in fragments of 64 bytes.
LIMITS = Limits(
    max_message_bytes=16 * MIB, max_frame_bytes=16 * MIB, max_fragments=4 * MIB // 64 + 1
)
GOOD = {"OK", "INFORMATIONAL"}


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send back what comes, and nothing else."""
    if scope["type"] != "websocket":
        return
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({**event, "type": "websocket.send"})


@contextlib.asynccontextmanager
async def echo_server(*, http2: bool) -> AsyncIterator[int]:
    """Our server on a free port, with a relay in front where HTTP/2 is asked for; the port."""
    options = ServerOptions(limits=LIMITS, lifespan="off", http2=http2)
    server = Server(echo, [parse_endpoint("tcp:port=0:interface=127.0.0.1")], options)
    await server.start()
    try:
        port = server.addresses[0][1]
        assert port is not None, "a TCP endpoint has a port"
        async with relaying(port) if http2 else contextlib.nullcontext(port) as asked:
            yield asked
    finally:
        await server.stop(1)


async def run_suite(
    wstest: str, cases: list[str], report: Path, *, http2: bool
) -> dict[str, dict[str, Any]]:
    """The suite's verdict on each case."""
    async with echo_server(http2=http2) as port:
        spec = {
            "outdir": str(report),
            "servers": [{"agent": "channels", "url": f"ws://127.0.0.1:{port}/"}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        path = report / "spec.json"
        path.write_text(json.dumps(spec))
        process = await asyncio.create_subprocess_exec(
            *(wstest, "-m", "fuzzingclient", "-s", str(path)),
            cwd=report,
            stdout=subprocess.DEVNULL,
        )
        await process.wait()
    verdicts: dict[str, dict[str, Any]] = json.loads((report / "index.json").read_text())
    return verdicts["channels"]


def judge(verdicts: dict[str, dict[str, Any]]) -> bool:
    """Print a summary; True if nothing failed."""
    for aspect in ("behavior", "behaviorClose"):
        counts = collections.Counter(verdict[aspect] for verdict in verdicts.values())
        print(f"{aspect}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    bad = {
        case: verdict
        for case, verdict in verdicts.items()
        if verdict["behavior"] not in GOOD or verdict["behaviorClose"] not in GOOD
    }
    for case, verdict in sorted(bad.items()):
        print(f"{case}: {verdict['behavior']}, close: {verdict['behaviorClose']}")
    return not bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wstest", required=True, help="path of the suite's program")
    parser.add_argument("--cases", choices=CASES, default="1-7,10")
    parser.add_argument("--http2", action="store_true", help="carry the sockets over HTTP/2")
    parser.add_argument("--report", type=Path, help="where the report's pages go")
    arguments = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        report = arguments.report or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = report.resolve()
        report.mkdir(parents=True, exist_ok=True)
        wstest = str(Path(arguments.wstest).resolve())
        verdicts = asyncio.run(
            run_suite(wstest, CASES[arguments.cases], report, http2=arguments.http2)
        )
    print(f"{len(verdicts)} cases in {time.monotonic() - began:.0f} s")
    return 0 if judge(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
