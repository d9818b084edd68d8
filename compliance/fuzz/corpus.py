"""The inputs that are kept: for each target a file of one input a line, in base64."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from compliance.fuzz.targets import TARGETS

import channels.wire

FOLDER = Path(__file__).parent / "inputs"


def load(target: str) -> list[bytes]:
    """The inputs of a target; none if there is no file yet."""
    path = FOLDER / f"{target}.txt"
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def save(target: str, inputs: list[bytes]) -> None:
    FOLDER.mkdir(exist_ok=True)
    lines = [base64.b64encode(each).decode() for each in sorted(inputs, key=lambda i: (len(i), i))]
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))


def smallest(target: str, inputs: list[bytes]) -> list[bytes]:
    """Few of the inputs, the short ones first, that reach what all of them reach."""
    reached: set[tuple[object, ...]] = set()
    chosen = []
    for data in sorted(inputs, key=len):
        if steps := _steps(target, data) - reached:
            reached |= steps
            chosen.append(data)
    return chosen


def _steps(target: str, data: bytes) -> set[tuple[object, ...]]:
    """Each step from a line of `channels.wire` to another."""
    folder = str(Path(channels.wire.__file__).parent)
    steps: set[tuple[object, ...]] = set()

    def trace(frame: FrameType, _event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        before = 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal before
            steps.add((frame.f_code, before, frame.f_lineno, event))
            before = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(None)
    return steps
