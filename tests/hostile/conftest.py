"""One server process per table; after each table it must serve, with nothing left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.process import ServerProcess


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker of pytest-xdist run a table: each worker would start a server for it."""
    for item in items:
        shared = {"server", "site"}.intersection(getattr(item, "fixturenames", ()))
        if shared and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server with the options that the module states as OPTIONS."""
    options: dict[str, dict[str, Any]] = getattr(request.module, "OPTIONS", {})
    process = ServerProcess(options)
    try:
        yield process
        process.assert_calm()
        process.assert_turned()
    finally:
        process.kill()


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for one test alone: memory is measured, or the server is stopped."""
    options: dict[str, dict[str, Any]] = getattr(request.module, "OPTIONS", {})
    process = ServerProcess(options)
    try:
        yield process
        if process.process.poll() is None:
            process.assert_turned()
    finally:
        process.kill()
