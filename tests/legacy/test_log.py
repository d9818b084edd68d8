"""Loggers that Channels 1 sets up, and what it checked of packages."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from channels import package_checks
from channels.log import handler, setup_logger


@pytest.fixture
def name() -> Iterator[str]:
    yield "tests.legacy.log"
    logger = logging.getLogger("tests.legacy.log")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(("verbosity", "level"), [(1, logging.INFO), (2, logging.DEBUG)])
def test_a_logger_writes_to_the_standard_error(verbosity: int, level: int, name: str) -> None:
    for _ in range(2):
        logger = setup_logger(name, verbosity)
    assert logger is logging.getLogger(name)
    assert (logger.level, logger.handlers, logger.propagate) == (level, [handler], False)


def test_no_package_is_asked_for() -> None:
    package_checks.check_all()
    assert package_checks.required_versions == {}
