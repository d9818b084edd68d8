"""Log records as JSON, an object in each line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from channels.server.request_ids import current_request_id


class JsonFormatter(logging.Formatter):
    """Writes a record as one line: time, level, logger, message, process, and what else there is.

    `worker` in a worker of several, `request_id` in a request, `exception` with the traceback, and
    `stack` where it was asked for.

    Args:
        worker: The worker's number; None for a process that is none.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if self._worker is not None:
            found["worker"] = self._worker
        request_id = getattr(record, "request_id", "-")
        if request_id == "-":
            request_id = current_request_id()
        if request_id:
            found["request_id"] = request_id
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            found["exception"] = record.exc_text
        if record.stack_info:
            found["stack"] = self.formatStack(record.stack_info)
        return json.dumps(found)
