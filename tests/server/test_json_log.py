from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from channels.server.json_log import JsonFormatter


def test_a_record_is_one_line() -> None:
    found = {
        "name": "a.b",
        "levelname": "WARNING",
        "created": 1_700_000_000.25,
        "msg": 'two\nlines, a "quote" of %s',
        "args": ("x\u2028y",),
        "process": 7,
    }
    line = JsonFormatter(worker=3).format(logging.makeLogRecord(found))
    assert line.isascii()
    assert "\n" not in line
    read = json.loads(line)
    assert datetime.fromisoformat(read.pop("time")) == datetime.fromtimestamp(1_700_000_000.25, UTC)
    assert read == {
        "level": "WARNING",
        "logger": "a.b",
        "message": 'two\nlines, a "quote" of x\u2028y',
        "process": 7,
        "worker": 3,
    }


def test_a_traceback_and_a_stack_are_fields() -> None:
    try:
        raise LookupError("lost")
    except LookupError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"msg": "x", "exc_info": info, "stack_info": "Stack:\n  here"})
    read = json.loads(JsonFormatter().format(record))
    assert read["exception"].endswith("LookupError: lost")
    assert read["stack"] == "Stack:\n  here"
