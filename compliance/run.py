"""Run the scorecard: one row for each promise, each with one number, its bar and a verdict.

    script/comply [ROW ...] [--short] [--list]

Without names all rows run.  Exit status 0 if every row passed.  What each row asks stands in
README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Seconds for one row.
PATIENCE = 1800.0


@dataclass(frozen=True, slots=True)
class Row:
    """One promise.

    Attributes:
        words: A module of this folder to run with its arguments, or "pytest" and what to select.
            A module's first line says the number; its exit status is the verdict.
    """

    id: str
    title: str
    bar: str
    words: tuple[str, ...]


def tests(*words: str) -> tuple[str, ...]:
    return ("pytest", *words)


HOSTILE = "tests/hostile"
#: Rows that take minutes each.
LONG = {"A2", "A3", "A6", "D2", "D4", "E1", "E2", "E3", "E4", "P1"}
AUTOBAHN = ("compliance.autobahn.run", "--wstest", os.environ.get("WSTEST", ""), "--cases")

ROWS = [
    Row("A1", "Autobahn groups 1-7 and 10", "247 OK", (*AUTOBAHN, "1-7,10")),
    Row("A2", "Autobahn group 9", "54 OK", (*AUTOBAHN, "9")),
    Row("A3", "Autobahn groups 12 and 13, a sample", "43 OK", (*AUTOBAHN, "sample")),
    Row("A6", "Autobahn groups 1 to 10 through HTTP/2", "301 OK", (*AUTOBAHN, "1-10", "--http2")),
    Row("A4", "WebSocket violations: right close code on the wire and to the application",
        "0 failed", tests(f"{HOSTILE}/test_websocket_violations.py")),
    Row("A5", "Bad WebSocket handshakes are refused, none reaches the application", "0 failed",
        tests(f"{HOSTILE}/test_websocket_handshake.py")),
    Row("B1", "HTTP/1.1 from raw bytes, every rule of RFC 9110 and 9112", "0 failed",
        tests(*(f"{HOSTILE}/test_http_{name}.py" for name in
                ("syntax", "framing", "connection", "sizes", "rules", "smuggling", "answers",
                 "django")), f"{HOSTILE}/test_checklist.py")),
    Row("B2", "HTTP/2, in clear and over TLS: every rule of RFC 9113 and RFC 7541", "146 and 146",
        ("compliance.http2.run",)),
    Row("B3", "Nine abuses of HTTP/2", "each cut, 5 MB and 0.3 s of CPU at most",
        ("compliance.overload.http2_floods",)),
    Row("B4", "Applications that break ASGI", "0 failed",
        tests(f"{HOSTILE}/test_application_misuse.py")),
    Row("B5", "Pipelined answers keep their order over 1,000 rounds", "0 failed",
        tests(f"{HOSTILE}/test_http_connection.py", "-k", "keep_their_order")),
    Row("C1", "Connections that stall, default settings", "all closed in their time",
        ("compliance.overload.stalled",)),
    Row("C2", "Headers, targets, trailers without end", "0 failed",
        tests(f"{HOSTILE}/test_http_sizes.py", "-k", "never_ends")),
    Row("C3", "Deflate bomb of 256 MB", "0 failed",
        tests(f"{HOSTILE}/test_floods.py", "-k", "bomb")),
    Row("C4", "300,000 tiny fragments", "0 failed",
        tests(f"{HOSTILE}/test_floods.py", "-k", "fragments")),
    Row("C5", "400,000 pings from one who does not read", "2 MB at most",
        ("compliance.overload.pings",)),
    Row("C6", "512 MB to one who does not read", "2 MB at most, cut, with a code of its own",
        ("compliance.overload.flood",)),
    Row("C7", "One slow member of a group of 200", "0 failed",
        tests("tests/server/test_slow_member.py")),
    Row("C8", "Echo to a non-reader, an application that does not read", "0 failed",
        tests(f"{HOSTILE}/test_floods.py", "-k", "does_not_read")),
    Row("C9", "Malformed frames and resets leave nothing behind", "0 failed",
        tests(f"{HOSTILE}/test_churn.py", f"{HOSTILE}/test_floods.py",
              "-k", "churn or random or mutated")),
    Row("C10", "One late error, then 4,000 requests", "0 failed",
        tests(f"{HOSTILE}/test_churn.py", "-k", "late_error")),
    Row("C11", "A chunked upload of 100 MB, 10,000 fields of one name", "413 and 4 MB at most",
        ("compliance.overload.upload",)),
    Row("D1", "SIGTERM with WebSockets and requests in hand", "0 failed",
        tests("tests/server/test_farewell.py", f"{HOSTILE}/test_churn.py",
              "-k", "farewell or stop or signal")),
    Row("D2", "2,000 WebSockets on four workers: one killed, three restarts under traffic",
        "0 failed, none closed but by its own worker", ("compliance.workers.restarts",)),
    Row("D3", "The deployment page, restarted under traffic behind nginx and HAProxy",
        "0 failures of 500 requests", ("compliance.deployment.rolling",)),
    Row("D4", "500 WebSockets that come and go for twenty minutes", "1 MB an hour at most",
        ("compliance.overload.soak",)),
    Row("E1", "Brokers killed, restarted, cut off", "0 failed",
        tests("tests/cluster/test_brokers.py", "tests/cluster/test_local.py")),
    Row("E2", "Connections to brokers that are cut all the time", "0 failed",
        tests("tests/cluster/test_brokers.py", "tests/cluster/test_broker_leases.py",
              "tests/contract", "-k", "break_all_the_time or cut_all_the_time")),
    Row("E3", "Brokers and processes that stand still", "0 failed",
        tests("tests/cluster/test_brokers.py", "tests/cluster/test_redis_leases.py",
              "tests/contract", "-k", "hangs or silently_dead or noticed or paused")),
    Row("E4", "Brokers that are killed and started again", "0 failed",
        tests("tests/cluster/test_brokers.py", "tests/cluster/test_broker_leases.py",
              "-k", "killed_and_started_again")),
    Row("E5", "Members and queues that are full: bounded, counted, told", "0 failed",
        tests("tests/cluster/test_brokers.py", "tests/contract", "-k", "full or flood or gap")),
    Row("E6", "Readers cancelled at random", "0 failed", tests("tests/contract", "-k", "cancel")),
    Row("E7", "Calls from threads, other loops, closed loops", "0 failed",
        tests("tests/contract", "-k", "async_to_sync or loops or threads or blocking")),
    Row("E10", "10,000 forged, damaged, repeated messages for each layer",
        "0 failed, no traceback",
        tests("-p", "compliance.overload.forgeries",
              "tests/contract", "tests/cluster/test_foreign_payloads.py", "-k",
              "foreign or forged or another_version or comes_twice or sealed_message")),
    Row("F1", "Origins", "0 failed", tests("tests/security")),
    Row("F2", "Access that ends: log-out, password, rights, tokens, in every process", "0 failed",
        tests("tests/security/test_access.py", "tests/security/test_tokens.py")),
    Row("F3", "Sessions: keys are cycled, users never mixed", "0 failed",
        tests("tests/test_auth.py", "tests/test_sessions.py")),
    Row("F4", "Limits of an address, a user, a connection: each with its answer and its count",
        "0 failed",
        tests("tests/server/test_admission.py", "tests/consumer/test_client_limits.py")),
    Row("F5", "Every byte in every place", "0 failed", tests(f"{HOSTILE}/test_http_bytes.py")),
    Row("F6", "No log line that a client wrote", "0 lines", ("compliance.overload.logs",)),
    Row("F7", "TLS that stalls, ends early, aborts", "0 failed", tests(f"{HOSTILE}/test_tls.py")),
    Row("P1", "Hostile requests through nginx and HAProxy", "0 differences",
        ("compliance.deployment.through",)),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What a row came to; `passed` is None if it could not be run and need not be."""

    number: str
    passed: bool | None
    output: str
    seconds: float


def run(row: Row, *, short: bool = False) -> Result:
    """Run one row; `short` leaves out those that take minutes."""
    if short and row.id in LONG:
        return Result("not run: it takes minutes, and --short was asked for", None, "", 0.0)
    if row.words[: len(AUTOBAHN)] == AUTOBAHN and not os.environ.get("WSTEST"):
        return Result("not run: WSTEST names no program", None, "", 0.0)
    began = time.monotonic()
    module, *words = row.words
    if module == "pytest":
        words = ["-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup", *words]
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env={**os.environ, "CI": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Result("took too long", False, str(error.output), PATIENCE)
    number = count(done.stdout) if module == "pytest" else done.stdout.partition("\n")[0]
    return Result(number, done.returncode == 0, done.stdout, time.monotonic() - began)


def count(output: str) -> str:
    """The number of a pytest row: how many of how many failed."""
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (\w+)", last_line(output))}
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    total = failed + counts.get("passed", 0)
    skipped = f", {counts['skipped']} skipped" if "skipped" in counts else ""
    return f"{failed} of {total} failed{skipped}"


def last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="ids such as B1; default: all")
    parser.add_argument("--list", action="store_true", help="list the rows and run none")
    parser.add_argument("--short", action="store_true", help="leave out rows that take minutes")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what failed rows wrote")
    options = parser.parse_args()
    known = {row.id: row for row in ROWS}
    if unknown := set(options.rows) - known.keys():
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    chosen = [known[name] for name in options.rows] or ROWS
    if options.list:
        print("\n".join(f"{row.id:4} {row.title} ({row.bar})" for row in chosen))
        return 0
    verdicts: Counter[bool | None] = Counter()
    for row in chosen:
        result = run(row, short=options.short)
        verdicts[result.passed] += 1
        verdict = {True: "pass", False: "FAIL", None: "-"}[result.passed]
        print(f"{verdict:4} {row.id:4} {row.title}: {result.number}", end="")
        print(f" (bar: {row.bar}; {result.seconds:.0f} s)", flush=True)
        if result.passed is False and options.verbose:
            print(result.output)
    print(f"{verdicts[True]} rows passed, {verdicts[False]} failed, {verdicts[None]} were not run.")
    return 1 if verdicts[False] else 0


if __name__ == "__main__":
    sys.exit(main())
