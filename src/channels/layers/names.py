"""How a node's channels are named, so that every node knows whose a channel is."""

from __future__ import annotations

import os
import re
import secrets
import string
from typing import Final

#: The group that every node is in: what concerns all nodes is published there.
ALL_NODES: Final = "_.nodes"
#: Every byte as a lower-case letter.
_TO_LETTERS: Final = (string.ascii_lowercase * 10)[:256].encode()
_NODE_CHARS: Final = string.ascii_lowercase + string.digits
#: A channel of a node: prefix, full stop, node, "!", local part.
_OF_NODE: Final = re.compile(r"\.(n[0-9a-z]{16})!")


def new_node() -> str:
    """A name for a node: 17 lower-case letters and digits, 82 bits of them random."""
    return "n" + "".join(secrets.choice(_NODE_CHARS) for _ in range(16))


def new_sender() -> bytes:
    """An identity for what a node sends, new with each start."""
    return os.urandom(8)


def local_part() -> str:
    """Twelve letters, 56 random bits: what follows the "!"."""
    # In one system call; that 256 is no multiple of 26 costs a fiftieth of a bit.
    return os.urandom(12).translate(_TO_LETTERS).decode("ascii")


def node_of(channel: str) -> str | None:
    """The node that a channel belongs to; None if its name says nothing of the kind."""
    found = _OF_NODE.search(channel)
    return found[1] if found is not None else None
