"""The grammar of channel and group names, written once for every layer.

    channel = 1*namechar [ "!" *localchar ]      group = 1*namechar
    namechar = ASCII letter / digit / "-" / "_" / "."
    localchar = word character / "-" / "."

A channel's part up to and including "!" is its non-local name: the inbox of the process that made
it.  Names have at most 99 characters.  Unlike upstream's pattern, which ends in "$", a trailing
newline is refused.
"""

from __future__ import annotations

import re
from typing import Final

MAX_NAME_LENGTH: Final = 100

CHANNEL_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]+(![\w\-.]*)?\Z")
GROUP_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]+\Z")


def non_local_name(name: str) -> str:
    """The part of a channel's name that all channels of its process share, "!" included."""
    head, mark, _ = name.partition("!")
    return head + mark
