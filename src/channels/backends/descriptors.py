"""Letting go of a socket whose event loop is closed, or belongs to a parent process."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

#: Kept, since they warn when they are collected.
_abandoned: Final[list[Any]] = []


def let_go(transport: asyncio.BaseTransport) -> None:
    """Free the peer of this connection without a word to it, and without the loop.

    The descriptor is replaced, not closed: the transport that still holds its number must not
    close another's later, and an epoll that a forked parent shares must not be touched.
    """
    _abandoned.append(transport)
    found = transport.get_extra_info("socket")
    if found is not None and (number := found.fileno()) >= 0:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number, inheritable=False)
        os.close(nowhere)
