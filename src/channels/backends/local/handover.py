"""What a hub leaves to the next one: messages, groups of queues, and what it has seen.

A file in the layer's directory and not a word to another process: the next hub may be one that has
not started yet.  It is read once.  A hub that is killed leaves nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgpack

from channels.backends.local.switchboard import Switchboard
from channels.backends.memory.queue import Held, envelope_octets
from channels.layers.envelope import decode_envelope

logger = logging.getLogger("channels.layers")

_VERSION: Final = 3
_SENDER_BITS_OCTETS: Final = 512
#: Stands for processes that have something on lease of the last hub.
_FORMER: Final = object()


def leave(board: Switchboard, path: Path) -> int:
    """Write down what `board` holds; returns how many unread messages there are.

    Raises:
        OSError: If the disk is full, for instance.
    """
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    count = 0
    pack = msgpack.Packer().pack
    try:
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
            for record in _records(board):
                count += record[0] == "unread"
                file.write(pack(record))
        # Whole or not there at all.
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return count


def _records(board: Switchboard) -> Iterator[tuple[Any, ...]]:
    yield "hub", _VERSION, board.epoch
    for sender, highest, bits in board.seen.entries():
        yield "seen", sender, highest, bits.to_bytes(_SENDER_BITS_OCTETS, "big")
    for queue, entry in board.engine.queues.items():
        # The last one first: each is put back before the others.
        for envelope in reversed(entry.envelopes):
            yield "unread", queue, envelope.encoded
    for token, held in board.engine.held.items():
        is_leased = held.reader is not None
        yield "held", token, held.queue, held.envelope.encoded, held.due, is_leased, held.is_delayed
    for group, members in board.engine.groups.items():
        for queue, expires in members.items():
            yield "member", group, queue, expires


def take_over(board: Switchboard, path: Path) -> bytes:
    """Take what the last hub left, and remove it; returns that hub's epoch, b"" if it left none."""
    epoch = b""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            # First of all: what cannot be read shall not stop the hub after this one, too.
            path.unlink(missing_ok=True)
            for kind, *fields in msgpack.Unpacker(file):
                if kind == "hub":
                    version, epoch = fields
                    if version != _VERSION:
                        raise ValueError(f"version {version}")
                else:
                    _RESTORE[kind](board, *fields)
    except FileNotFoundError:
        return b""
    except Exception as error:
        # Whatever msgpack and the loop make of a torn or foreign file.
        logger.warning("What the last hub left in %s cannot be read: %r", path, error)
    return epoch


def _restore_seen(board: Switchboard, sender: bytes, highest: int, bits: bytes) -> None:
    board.seen.restore(sender, highest, int.from_bytes(bits, "big"))


def _restore_unread(board: Switchboard, queue: str, data: bytes) -> None:
    envelope = decode_envelope(data)
    board.engine.octets += envelope_octets(envelope)
    board.engine.put_back(queue, [envelope])


def _restore_held(
    board: Switchboard,
    token: bytes,
    queue: str,
    data: bytes,
    due: float,
    is_leased: bool,
    is_delayed: bool,
) -> None:
    # Whoever has it on lease knows its token, and needs no more to end it.
    envelope = decode_envelope(data)
    board.engine.octets += envelope_octets(envelope)
    reader = _FORMER if is_leased else None
    board.engine.hold(token, Held(queue, envelope, due, reader, is_delayed))


def _restore_member(board: Switchboard, group: str, queue: str, expires: float) -> None:
    board.engine.add(group, queue, expires)


_RESTORE: Final[dict[str, Callable[..., None]]] = {
    "seen": _restore_seen,
    "unread": _restore_unread,
    "held": _restore_held,
    "member": _restore_member,
}
