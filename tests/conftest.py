"""What holds for the whole suite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.cluster.servers import OwnServer, rabbitmq_server

# How long an example takes says more about the machine than about the code.
settings.register_profile("channels", deadline=None)
settings.load_profile("channels")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a Unix socket's name, as `tmp_path` does not."""
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """One RabbitMQ for all tests that want one: it takes its time to start."""
    with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server
