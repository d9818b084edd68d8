"""`examples/udp`: datagrams in, a worker's replies out, as its README says."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Child

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "udp"
PATIENCE_SECONDS = 20.0


@pytest.fixture
def prefix() -> dict[str, str]:
    """A layer of the test's own on this machine."""
    return {"UDP_PREFIX": f"udp-{uuid.uuid4().hex[:8]}"}


@contextlib.contextmanager
def interface(prefix: dict[str, str]) -> Iterator[tuple[Child, socket.socket]]:
    """The interface server, and a client of it."""
    with (
        Child("manage.py", "udp", "--port", "0", cwd=FOLDER, env=prefix) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        port = int(server.wait_for(r"Listening for datagrams at 127\.0\.0\.1:(\d+)")[1])
        client.connect(("127.0.0.1", port))
        client.settimeout(PATIENCE_SECONDS)
        yield server, client


@contextlib.contextmanager
def worker(prefix: dict[str, str]) -> Iterator[Child]:
    with Child("manage.py", "runworker", "udp.receive", cwd=FOLDER, env=prefix) as child:
        child.wait_for("Started worker")
        yield child


def ask(client: socket.socket, data: bytes) -> bytes:
    client.send(data)
    return client.recv(1000)


def test_datagrams_are_answered_by_one_worker_after_another(prefix: dict[str, str]) -> None:
    with interface(prefix) as (server, client):
        with worker(prefix):
            assert ask(client, b"kitchen 21.5\n") == b"kitchen is 21.5\n"
            assert ask(client, b"\xff\xff") == b"expected: <name> <number>\n"
        # Nobody is there: it waits for the next worker.
        client.send(b"garden 3")
        with worker(prefix):
            assert client.recv(1000) == b"garden is 3\n"
        assert server.stop() == 0
        assert "Traceback" not in server.output
