"""A file as the body of a response (`http.response.pathsend`), read piece by piece in a thread.

It stays open until the last piece was sent, so that a file that is replaced meanwhile is sent as it
was; one that shrinks ends before its Content-Length, and the response is cut.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from io import BufferedReader
from typing import Any, Final

from channels.exceptions import LocalProtocolError
from channels.kit.limits import KIB

#: A quarter of `write_buffer_bytes`, beyond which a slow client holds one piece more.
PIECE_BYTES: Final = 64 * KIB


async def file_pieces(path: Any) -> AsyncGenerator[tuple[bytes, bool]]:
    """The content of a file, each piece with whether more follow.

    Args:
        path: Absolute, of a regular file.

    Raises:
        LocalProtocolError: If it is no such path.
        OSError: If the file cannot be opened or read.
    """
    if not isinstance(path, str) or not os.path.isabs(path):
        raise LocalProtocolError(f"http.response.pathsend: path={path!r} is no absolute path.")
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path)
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    with file:
        more = True
        while more:
            piece = await asyncio.to_thread(file.read, PIECE_BYTES)
            more = len(piece) == PIECE_BYTES
            yield piece, more


def _open(path: str) -> BufferedReader:
    # A named pipe would hold the thread until somebody writes into it.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise LocalProtocolError(f"http.response.pathsend: {path!r} is no regular file.")
    return open(path, "rb")


def _close(opening: asyncio.Future[BufferedReader]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
