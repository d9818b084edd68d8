"""The benchmark of the layers counts what it says it counts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.layers.cases import disorder, lost_doubled_disordered
from benchmarks.layers.proxy import Proxy
from benchmarks.layers.redis_server import is_whole

from tests.cluster.servers import program

CASES = ["queue", "kill", "restart", "restart-unread", "sync", "crowd", "roundtrip"]
OPTIONS = ["--layer", "redis", "--scale", "0.02", "--json"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("marks", "found"),
    [([], 0), ([0, 1, 2], 0), ([0, 2, 1], 1), ([2, 0, 1], 2), ([0, 1, 0, 1, 2], 0), ([1, 0, 0], 1)],
)
def test_disorder_is_what_came_after_something_later_repeats_aside(
    marks: list[int], found: int
) -> None:
    assert disorder(marks) == found


def test_what_failed_is_not_expected_and_each_reader_counts() -> None:
    found = lost_doubled_disordered(5, [3], [[0, 1, 2, 4], [0, 2, 2, 1, 3]])
    assert found == {"lost": 1, "doubled": 1, "disordered": 1}


@pytest.mark.parametrize("answer", [b"+PONG\r\n", b"$5\r\nab\r\nc\r\n", b"-ERR no\r\n", b":3\r\n"])
def test_an_answer_of_redis_is_whole_with_its_last_byte(answer: bytes) -> None:
    assert is_whole(answer)
    assert not any(is_whole(answer[:end]) for end in range(len(answer)))


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_small_runs_meet_the_goals_that_are_no_times() -> None:
    program("redis-server", "valkey-server")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.layers", *CASES, *OPTIONS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found = list(map(json.loads, done.stdout.splitlines()))
    rows = {row["case"]: row for row in found}
    assert list(rows) == CASES, done.stderr
    assert not any("stuck" in row for row in found), done.stderr
    assert (rows["queue"]["delivered"], rows["queue"]["doubled"]) == (40, 0)
    assert (rows["kill"]["lost"], rows["kill"]["doubled"], rows["kill"]["disordered"]) == (0, 0, 0)
    assert rows["restart"]["lost"] <= rows["restart"]["unread in broker"]
    unread = rows["restart-unread"]
    assert 0 < unread["unread in broker"] >= unread["lost"], unread
    assert rows["sync"]["sockets"] <= 3
    for row in found:
        if row["case"] == "crowd":
            assert (row["lost"], row["messages/send"]) == (0, 1.0), row
    assert [row["raw us"] > 0 for row in found if row["case"] == "roundtrip"] == [True, True]


def test_a_wire_hands_on_until_it_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = Proxy(listening.getsockname()[1])
        try:
            for _ in range(2):
                near = socket.create_connection(("127.0.0.1", proxy.port), 5)
                far, _ = listening.accept()
                far.settimeout(10)
                near.settimeout(10)
                with near, far:
                    near.sendall(b"there")
                    assert far.recv(5) == b"there"
                    far.sendall(b"back")
                    assert near.recv(4) == b"back"
                    proxy.cut()
                    for end in (near, far):
                        with contextlib.suppress(ConnectionResetError):
                            assert end.recv(1) == b""
        finally:
            proxy.close()
