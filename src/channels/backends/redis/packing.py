"""Commands as octets: an array of bulk strings, the same in RESP2 and RESP3."""

from __future__ import annotations

from collections.abc import Sequence

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

Word = bytes | str | int


def pack_slowly(command: Sequence[Word]) -> bytes:
    """`pack`, in Python."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        if isinstance(word, str):
            data = word.encode()
        elif isinstance(word, int):
            data = b"%d" % word
        else:
            data = word
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def pack(command: Sequence[Word]) -> bytes:
    """A command as the server reads it."""
    if hiredis is None:
        return pack_slowly(command)
    # Its annotation says a tuple of one.
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed
