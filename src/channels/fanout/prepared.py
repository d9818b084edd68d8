"""A message that is ready for many connections: framed once per form.

A form names how a connection wants its bytes.  `PLAIN` is an uncompressed frame, which every
WebSocket takes, whatever it negotiated (RFC 7692 section 6: an endpoint may send uncompressed
messages at any time).
"""

from __future__ import annotations

from typing import Final

from channels.wire.deflate import DEFLATE_FROM_BYTES, deflate
from channels.wire.frames import BINARY, TEXT, server_frame

PLAIN: Final = "plain"
#: Compressed without context from earlier messages, so that one frame serves all connections.
DEFLATE: Final = "deflate"


class PreparedMessage:
    """A text or binary WebSocket message and its frames.

    Frames are made on first use and kept; the object itself never changes, so any number of
    connections may share it.
    """

    __slots__ = ("_frames", "opcode", "payload")

    def __init__(self, *, text: str | None = None, data: bytes | None = None) -> None:
        if (text is None) == (data is None):
            raise ValueError("A message has text or bytes: give exactly one of them.")
        self.opcode = BINARY if text is None else TEXT
        self.payload: bytes = text.encode() if text is not None else bytes(data or b"")
        self._frames: dict[str, bytes] = {}

    def frame(self, form: str = PLAIN) -> bytes:
        """The message's one frame in this form.

        Raises:
            KeyError: For a form that this class does not know.
        """
        frame = self._frames.get(form)
        if frame is None:
            frame = self._frames[form] = _MAKERS[form](self.opcode, self.payload)
        return frame


def _plain(opcode: int, payload: bytes) -> bytes:
    return server_frame(opcode, payload)


def _deflated(opcode: int, payload: bytes) -> bytes:
    if len(payload) < DEFLATE_FROM_BYTES:
        return server_frame(opcode, payload)
    return server_frame(opcode, deflate(payload), compressed=True)


_MAKERS = {PLAIN: _plain, DEFLATE: _deflated}
