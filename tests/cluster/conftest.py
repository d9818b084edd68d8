"""The brokers of the cluster tests, each started once for all tests of a process that want it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer, nats_server, redis_server
from tests.cluster.sites import BROKERS, Site, site_on
from tests.layers.databases import alias

__all__ = ["alias"]


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    folder = PostgresFolder()
    with folder.server() as server:
        yield server
    folder.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    """For the local broker: a Unix socket's address is short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def site(request: pytest.FixtureRequest, alias: Callable[..., str]) -> Site:
    """The broker whose name the test is parametrised with, indirectly."""
    name = request.param
    return site_on(name, request.getfixturevalue(BROKERS[name].server), alias)


@pytest.fixture
async def proxy(site: Site) -> AsyncIterator[ChaosProxy]:
    """Before the site's broker."""
    async with ChaosProxy(("127.0.0.1", site.server.port)) as proxy:
        yield proxy


@pytest.fixture
async def make_layer(site: Site) -> AsyncIterator[Callable[..., Any]]:
    """Makes layers of the site, as `Site.make`; they are closed after the test."""
    made: list[Any] = []

    def make(port: int | None = None, **config: Any) -> Any:
        made.append(site.make(port, **config))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()
