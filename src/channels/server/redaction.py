"""Secrets in a query, kept out of the access log.

A browser's WebSocket can send no header of its own, so tokens and tickets travel in the query, and
a log is read by many and kept for long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from channels.wire.percent import unquote

HIDDEN: Final = "***"
#: Django parses at most 1,000 parameters; a query of so many is not worth its place in a log.
MOST_PARAMETERS: Final = 200


class Redaction:
    """Writes a request's target as text, without the values of parameters with these names.

    Names are compared without case, and with their percent-escapes undone.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def __call__(self, target: bytes) -> str:
        """The target; of a query with over 200 parameters only that there was one."""
        text = target.decode("ascii")
        if "?" not in text or not self._names:
            return text
        path, mark, query = text.partition("?")
        parts = query.split("&", MOST_PARAMETERS)
        if len(parts) > MOST_PARAMETERS:
            return path + mark + HIDDEN
        return path + mark + "&".join(map(self._shown, parts))

    def _shown(self, part: str) -> str:
        name, mark, value = part.partition("=")
        if value and unquote(name.encode()).lower() in self._names:
            return name + mark + HIDDEN
        return part
