"""A plugin for pytest: the forged messages of the layers' contract, 10,000 for each layer.

    pytest -p compliance.overload.forgeries tests/contract -k forged

A test also fails if a forged message cost a traceback in the log, or a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

FORGERIES = 10_000
#: Characters that one test may write to the log, whatever is forged.
MOST_LOGGED = 100_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        cls = getattr(item, "cls", None)
        if hasattr(cls, "forgeries"):
            cls.forgeries = FORGERIES


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = caplog.get_records("call")
    tracebacks = [record.getMessage() for record in records if record.exc_info]
    assert tracebacks == []
    assert sum(len(record.getMessage()) for record in records) < MOST_LOGGED
