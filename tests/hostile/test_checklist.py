from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from tests.hostile.case import Row
from tests.hostile.checklist import CHECKLIST
from tests.hostile.test_websocket_handshake import BAD

TABLES = sorted(Path(__file__).parent.glob("test_*.py"))


def rows() -> list[Row]:
    found: list[Row] = []
    for path in TABLES:
        for value in vars(import_module(f"tests.hostile.{path.stem}")).values():
            if isinstance(value, list):
                found += [row for row in value if isinstance(row, Row)]
    return found


def test_every_item_of_the_list_is_answered_by_a_row_or_a_test() -> None:
    functions = {
        name for path in TABLES for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    known = {row.id for row in rows()} | {case.id for case in BAD} | functions
    assert sorted(set(CHECKLIST.values()) - known) == []
    assert len(CHECKLIST) >= 215


def test_no_two_rows_have_one_id() -> None:
    ids = sorted(row.id for row in rows())
    assert ids == sorted(set(ids))
