"""The tests' own servers start, die and come back where they were."""

from pathlib import Path

import pytest

from tests.cluster.servers import OwnServer, answers, free_port, redis_server


def ping(server: OwnServer) -> bool:
    return answers(server.port, b"PING\r\n", b"+PONG")


def test_a_killed_server_comes_back_on_its_port(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        assert ping(server)
        server.kill()
        assert not server.is_running
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
            ping(server)
        server.start()
        assert ping(server)
    assert not server.is_running


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = OwnServer(["sh", "-c", "echo no such luck; exit 1"], tmp_path, free_port(), bool)
    with pytest.raises(RuntimeError, match="no such luck"):
        server.start()
