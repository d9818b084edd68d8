"""Packages that build on Channels, unchanged: a few of those in compliance/packages."""

from __future__ import annotations

import sys

import pytest
from compliance.packages.run import run


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "case", ["channelsmultiplexer", "djangochannelsrestframework", "strawberry"]
)
def test_package(case: str) -> None:
    run(case, sys.executable)
