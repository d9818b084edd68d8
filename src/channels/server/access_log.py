"""The access log: one line for each request, in the form that log analysers know.

    host:port - - [21/Nov/2026:02:32:41] "GET /chat/" 200 1270 0.012

The last field is the duration in seconds.  What the server itself refused has the reason behind it.
The other form has the same fields as a JSON object in each line.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from functools import lru_cache

from channels.kit.printable import printable
from channels.kit.types import Address
from channels.server.access import AccessRecord

#: What happened to a WebSocket -> the word in the place of the method.
WEBSOCKET_WORDS = {
    "websocket.connecting": "WSCONNECTING",
    "websocket.connected": "WSCONNECT",
    "websocket.rejected": "WSREJECT",
    "websocket.disconnected": "WSDISCONNECT",
}


def access_line(
    client: Address | str | None,
    word: str,
    path: str,
    status: int | None = None,
    size: int | None = None,
) -> str:
    """One line of the log, with the local time of now."""
    now = _second_text(int(time.time()))
    number = "-" if status is None else status
    length = "-" if size is None else size
    return f'{client_text(client)} - - [{now}] "{word} {safe(path)}" {number} {length}'


@lru_cache(maxsize=1)
def _second_text(second: int) -> str:
    """The local time of a second of the clock: a busy server writes many lines in each."""
    return time.strftime("%d/%b/%Y:%H:%M:%S", time.localtime(second))


def client_text(client: Address | str | None) -> str:
    """A client's address as text; "-" for one that has none."""
    if client is None or isinstance(client, str):
        return client or "-"
    host, port = client
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def safe(text: str) -> str:
    """`text` for a place between quotes: none of its characters ends that place, or the line."""
    return printable(text, len(text)).replace('"', '\\"')


class AccessLog:
    """Writes what it is called with to a logger.

    Args:
        is_json: Whether each line is a JSON object.
    """

    def __init__(self, logger: logging.Logger, *, is_json: bool = False) -> None:
        self._logger = logger
        self._line = _json_line if is_json else _common_line

    def __call__(self, record: AccessRecord) -> None:
        logger = self._logger
        if logger.isEnabledFor(logging.INFO):
            # As `logger.info` does it, but for the search for the caller, a tenth of a request.
            line = (self._line(record),)
            logger.handle(
                logger.makeRecord(logger.name, logging.INFO, __file__, 0, "%s", line, None)
            )


def _common_line(record: AccessRecord) -> str:
    word = WEBSOCKET_WORDS.get(record.kind, record.method)
    line = access_line(record.client, word, record.path, record.status, record.size)
    reason = f' "{safe(record.reason)}"' if record.reason else ""
    return f"{line} {record.duration:.3f}{reason}"


def _json_line(record: AccessRecord) -> str:
    return json.dumps(
        {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "client": client_text(record.client),
            "kind": record.kind,
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "size": record.size,
            "duration": round(record.duration, 6),
            **({"reason": record.reason} if record.reason else {}),
            **({"request_id": record.request_id} if record.request_id else {}),
        }
    )
