"""What a hub leaves to the next one: messages, groups of queues, and what it has seen.

A file in the layer's directory and not a word to another process: the next hub may be one that has
not started yet.  It is read once.  A hub that is killed leaves nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
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


def leave(board: Switchboard, path: Path) -> None:
    """Write down what `board` holds.

    Raises:
        OSError: If the disk is full, for instance.
    """
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    pack = msgpack.Packer().pack
    try:
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
            for record in _records(board):
                file.write(pack(record))
        # Whole or not there at all.
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


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
            records = msgpack.Unpacker(file)
            _, version, epoch = next(records)
            if version != _VERSION:
                raise ValueError(f"version {version}")
            for record in records:
                _restore(board, record)
    except FileNotFoundError:
        return b""
    except Exception as error:
        # Whatever msgpack and the loop make of a torn or foreign file.
        logger.warning("What the last hub left in %s cannot be read: %r", path, error)
    return epoch


def _restore(board: Switchboard, record: list[Any]) -> None:
    engine = board.engine
    match record:
        case ["seen", sender, highest, bits]:
            board.seen.restore(sender, highest, int.from_bytes(bits, "big"))
        case ["unread", queue, data]:
            envelope = decode_envelope(data)
            engine.octets += envelope_octets(envelope)
            engine.put_back(queue, [envelope])
        case ["held", token, queue, data, due, is_leased, is_delayed]:
            envelope = decode_envelope(data)
            engine.octets += envelope_octets(envelope)
            # Whoever has it on lease knows its token, and needs no more to end it.
            reader = _FORMER if is_leased else None
            engine.hold(token, Held(queue, envelope, due, reader, is_delayed))
        case ["member", group, queue, expires]:
            engine.add(group, queue, expires)
        case _:
            raise ValueError(f"the record {record!r:.50}")
