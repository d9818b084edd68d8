"""The access log as a callable of (protocol, action, details)."""

from __future__ import annotations

from typing import Any, TextIO

from channels.server.access_log import access_line

#: (protocol, action) -> (the request's method, or the word that stands for it).
WORDS = {
    ("websocket", "connecting"): "WSCONNECTING",
    ("websocket", "connected"): "WSCONNECT",
    ("websocket", "rejected"): "WSREJECT",
    ("websocket", "disconnected"): "WSDISCONNECT",
}


class AccessLogGenerator:
    """Writes a line for each action to `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        if (protocol, action) == ("http", "complete"):
            self._write(details, details["method"], details["status"], details["size"])
        elif (protocol, action) in WORDS:
            self._write(details, WORDS[protocol, action])

    def _write(
        self,
        details: dict[str, Any],
        word: str,
        status: int | None = None,
        size: int | None = None,
    ) -> None:
        line = access_line(details["client"], word, details["path"], status, size)
        self.stream.write(line + "\n")
