"""A message under assembly from its frames, and the bounds that it grows against."""

from __future__ import annotations

import codecs
from typing import Final

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.frames import TEXT, Header

INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009

_RSV1: Final = 0b100
_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Assembly:
    """The frames of one message so far; empty between messages.

    Text is decoded piece by piece, so that invalid UTF-8 is found where it stands, not when the
    message is complete.
    """

    __slots__ = (
        "_data",
        "_decoder",
        "_frames",
        "_limits",
        "_text",
        "is_compressed",
        "is_open",
        "is_text",
        "size",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clear()

    def _clear(self) -> None:
        #: True from a message's first frame to its last.
        self.is_open = False
        self.is_text = False
        self.is_compressed = False
        #: Payload bytes so far, inflated.
        self.size = 0
        self._frames = 0
        self._text: list[str] = []
        self._data: list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None

    def judge(self, header: Header) -> None:
        """Compare a data frame's header with the bounds, before its payload arrives.

        Raises:
            RemoteProtocolError: With the code to close with.
        """
        largest = self._limits.max_frame_bytes
        if largest is not None and header.length > largest:
            raise RemoteProtocolError(
                f"A frame has at most {largest} bytes: found {header.length}.", close_code=TOO_BIG
            )
        if self._frames >= self._limits.max_fragments:
            raise RemoteProtocolError(
                f"A message has at most {self._limits.max_fragments} frames.",
                close_code=POLICY_VIOLATION,
            )
        if not (self.is_compressed or header.reserved):
            self._bound(header.length)

    def _bound(self, more: int) -> None:
        largest = self._limits.max_message_bytes
        if largest is not None and self.size + more > largest:
            raise RemoteProtocolError(f"A message has at most {largest} bytes.", close_code=TOO_BIG)

    def begin(self, header: Header) -> None:
        """Take a data frame's header; its payload follows in `add`."""
        self._frames += 1
        if not self.is_open:
            self.is_open = True
            self.is_text = header.opcode == TEXT
            self.is_compressed = bool(header.reserved & _RSV1)

    def add(self, payload: bytes, *, is_last: bool) -> None:
        """Take a piece of the payload; `is_last` if the message ends with it.

        Raises:
            RemoteProtocolError: If the message is too big or its text is not UTF-8.
        """
        self._bound(len(payload))
        self.size += len(payload)
        if not self.is_text:
            self._data.append(payload)
            return
        if self._decoder is None:
            self._decoder = _utf8_decoder()
        try:
            self._text.append(self._decoder.decode(payload, is_last))
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(
                f"A text message is UTF-8: {error.reason}.", close_code=INVALID_DATA
            ) from None

    def take(self) -> tuple[str | bytes, int]:
        """The whole message and its size in bytes; the next frame begins another."""
        whole = "".join(self._text) if self.is_text else b"".join(self._data)
        size = self.size
        self._clear()
        return whole, size
