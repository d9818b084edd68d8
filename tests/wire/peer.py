"""A WebSocket client's side, written byte by byte, able to break every rule."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from channels.kit.limits import Limits
from channels.wire.deflate import Deflate
from channels.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from channels.wire.websocket import Ended, Event, Received, SilentFrame, WebSocket

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT"]

MASK = b"\x37\xfa\x21\x3d"


def mask(payload: bytes, key: bytes = MASK) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_code: int | None = None,
    length: int | None = None,
) -> bytes:
    """A client frame; `length_code` and `length` let its header lie."""
    size = len(payload) if length is None else length
    code = length_code or (size if size < 126 else 126 if size < 65536 else 127)
    head = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | code])
    if code == 126:
        head += struct.pack("!H", size)
    elif code == 127:
        head += struct.pack("!Q", size)
    return head + (MASK + mask(payload) if masked else payload)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def text(payload: str) -> bytes:
    return frame(TEXT, payload.encode())


def squeeze(payload: bytes) -> bytes:
    """One message's payload in permessage-deflate."""
    machine = zlib.compressobj(wbits=-15)
    return (machine.compress(payload) + machine.flush(zlib.Z_SYNC_FLUSH))[:-4]


def events(machine: WebSocket) -> list[Event]:
    """All events that the machine has now, without those that tell the application nothing."""
    return [event for event in all_events(machine) if not isinstance(event, SilentFrame)]


def all_events(machine: WebSocket) -> list[Event]:
    """All events that the machine has now: one for each frame."""
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames (first byte, payload) of a server's output."""
    found = []
    while data:
        first, size = data[0], data[1]
        start = 2
        if size == 126:
            (size,) = struct.unpack_from("!H", data, 2)
            start = 4
        elif size == 127:
            (size,) = struct.unpack_from("!Q", data, 2)
            start = 10
        assert len(data) >= start + size, "a server's frame is cut short"
        found.append((first, data[start : start + size]))
        data = data[start + size :]
    return found


class Outcome:
    """What became of some input: messages, the end, and the bytes that went back."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        limits: Limits | None = None,
        compression: Deflate | None = None,
    ) -> None:
        machine = WebSocket(limits or Limits(), compression)
        self.events: list[Event] = []
        for piece in pieces:
            machine.receive_data(piece)
            self.events += events(machine)
        machine.finish()
        self.machine = machine
        self.frames = read_frames(machine.data_to_send())

    @property
    def messages(self) -> list[str | bytes]:
        return [event.data for event in self.events if isinstance(event, Received)]

    @property
    def ended(self) -> tuple[int, str] | None:
        last = self.events[-1] if self.events else None
        return (last.code, last.reason) if isinstance(last, Ended) else None

    @property
    def code_told(self) -> int | None:
        """The code for the application."""
        return self.ended[0] if self.ended else None

    @property
    def code_sent(self) -> int | None:
        """The code in the close frame that went to the peer; 1005 if that was empty."""
        payloads = [payload for first, payload in self.frames if first == 0x80 | CLOSE]
        if not payloads:
            return None
        assert len(payloads) == 1
        return int.from_bytes(payloads[0][:2]) if payloads[0] else 1005

    @property
    def pongs(self) -> list[bytes]:
        return [payload for first, payload in self.frames if first == 0x80 | PONG]


def ways(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes whole, cut in two at every place, and byte by byte."""
    yield [data]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]
    yield [data[index : index + 1] for index in range(len(data))]
