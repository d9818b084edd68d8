"""Text that a client chose, made fit for one line of a log or of an error.

A line break in it would forge a line, an escape sequence drives the terminal that shows the log,
and a bidirectional control shows the line in another order than it is stored in.
"""

from __future__ import annotations

from typing import Final

#: Characters of a client's text that are worth a place in a log line.
PRINTABLE_LIMIT: Final = 200


def printable(text: str, limit: int = PRINTABLE_LIMIT) -> str:
    r"""The text without anything that ends a line or is not shown as itself.

    Control characters (8-bit ones too), line separators, bidirectional and other format controls,
    lone surrogates and spaces other than U+0020 become Python's escapes (`\n`, `\x1b`, `\u2028`),
    and a backslash becomes two, so that an escape cannot be imitated.  Letters of any script stay.

    Args:
        limit: Characters of `text` that are shown; "..." stands for the rest.
    """
    shown = text[:limit]
    if not shown.isprintable() or "\\" in shown:
        shown = "".join(map(_escaped, shown))
    return shown if len(text) <= limit else f"{shown}..."


def _escaped(sign: str) -> str:
    if sign.isprintable() and sign != "\\":
        return sign
    return sign.encode("unicode_escape").decode("ascii")
