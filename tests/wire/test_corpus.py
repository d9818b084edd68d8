"""What the fuzzer found worth keeping, once more."""

from __future__ import annotations

import pytest
from compliance.fuzz import corpus
from compliance.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_keeps_its_word(target: str) -> None:
    inputs = corpus.load(target)
    assert inputs
    for data in inputs:
        TARGETS[target](data)
