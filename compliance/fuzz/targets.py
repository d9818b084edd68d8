"""What is fuzzed: each function takes bytes of anybody's and fails if a parser breaks its word.

A parser's word: any bytes give events or the error that its errors page names, and the same ones
however the network cuts them.  The first byte of an input says how the rest is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from tests.wire.http2 import frames
from tests.wire.http2.frames import Frame, FrameReader
from tests.wire.peer import Outcome
from tests.wire.reading import outline, read

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire import deflate
from channels.wire.http2.connection import Http2Connection
from channels.wire.http2.events import (
    ConnectionFailed,
    Event,
    StreamData,
    StreamOpened,
    StreamRefused,
    WindowOpened,
)
from channels.wire.websocket import SENDABLE_CODES

#: Small, so that inputs of some hundred bytes reach every bound.
_HTTP1: Final = Limits(
    max_request_line_bytes=256,
    max_header_bytes=1024,
    max_header_field_bytes=256,
    max_headers=8,
    max_body_bytes=200,
)
_HTTP2: Final = replace(
    _HTTP1, http2_max_streams=4, http2_max_reset_rate=5.0, http2_max_control_rate=10.0
)
_WEBSOCKET: Final = Limits(max_message_bytes=200, max_frame_bytes=150, max_fragments=4)
#: Codes for the application that no close frame may have: without a code, without a close frame.
_TOLD: Final = SENDABLE_CODES | {1005, 1006}


def pieces(data: bytes) -> list[bytes]:
    """The input behind the first byte, cut as that says."""
    if not data:
        return []
    step, rest = data[0] % 16 + 1, data[1:]
    return [rest[place : place + step] for place in range(0, len(rest), step)]


def http1(data: bytes) -> None:
    """Requests over HTTP/1.1."""
    cut = _accepted(pieces(data))
    whole = _accepted([data[1:]])
    assert cut == whole, f"cut {cut}, whole {whole}"


def _accepted(parts: Iterable[bytes]) -> list[object]:
    # Which of two faults is seen first may depend on the cuts.
    events = outline(read(parts, _HTTP1, eof=True))
    return ["refused" if isinstance(item, int) else item for item in events]


def http2(data: bytes) -> None:
    """Frames of an HTTP/2 connection, behind its preface and SETTINGS."""
    whole, cut = _http2([data[1:]]), _http2(pieces(data))
    # What stood before a fault may be lost with it, where both came in one piece.
    assert (whole[-1:] == ["failed"]) == (cut[-1:] == ["failed"]), f"cut {cut}, whole {whole}"
    if whole[-1:] == ["failed"]:
        whole, cut = whole[:-1], cut[: len(whole) - 1]
    assert cut == whole, f"cut {cut}, whole {whole}"
    _http2(pieces(data), answers=True)


def _http2(parts: Iterable[bytes], *, answers: bool = False) -> list[object]:
    """What the peer has sent, in short; the frames that it gets are whole and well-formed."""
    machine, reader = Http2Connection(_HTTP2), FrameReader()
    said: list[object] = []
    heard: list[Frame] = []
    for part in (frames.PREFACE + frames.settings(), *parts):
        machine.receive_data(part, 0.0)
        while (event := machine.next_event()) is not None:
            assert said[-1:] != ["failed"], f"{event} after the connection's end"
            if not isinstance(event, WindowOpened):
                said.append(_outline(event))
            if answers and isinstance(event, StreamOpened | StreamRefused):
                _answer(machine, event.stream_id)
        heard += reader.feed(machine.data_to_send())
    has_goaway = any(each.kind == frames.GOAWAY for each in heard)
    assert has_goaway == (said[-1:] == ["failed"]), f"{said} and {heard}"
    return said


def _outline(event: Event) -> object:
    if isinstance(event, ConnectionFailed):
        return "failed"
    if isinstance(event, StreamOpened):
        return event.stream_id, event.request.line, event.request.headers
    if isinstance(event, StreamRefused):
        return event.stream_id, event.error.status
    if isinstance(event, StreamData):
        return event.stream_id, event.data
    return type(event).__name__, getattr(event, "stream_id", 0)


def _answer(machine: Http2Connection, stream_id: int) -> None:
    """Answer with ten bytes, or as many as the peer's windows allow; every third request is cut."""
    machine.send_head(stream_id, [(b":status", b"200")], has_ended=False)
    size = machine.sendable(stream_id, 10)
    machine.send_data(stream_id, bytes(size), has_ended=size == 10)
    if stream_id % 3 == 0:
        machine.reset(stream_id, frames.CANCEL)
    else:
        machine.close(stream_id)


def websocket(data: bytes) -> None:
    """Frames of an open WebSocket; a first byte of 128 and more: with permessage-deflate."""
    compresses = bool(data) and data[0] >= 128
    cut, whole = _outcome(pieces(data), compresses), _outcome([data[1:]], compresses)
    assert cut.messages == whole.messages, f"cut {cut.messages}, whole {whole.messages}"
    assert (cut.ended is None) == (whole.ended is None), f"cut {cut.ended}, whole {whole.ended}"
    for each in (cut, whole):
        if each.ended is not None:
            code, _ = each.ended
            assert code in _TOLD, f"the application is told {code}"
            assert each.code_sent in {None, code}, f"told {code}, sent {each.code_sent}"


def _outcome(parts: list[bytes], compresses: bool) -> Outcome:
    agreed = deflate.negotiate(["permessage-deflate"]) if compresses else None
    return Outcome(parts, _WEBSOCKET, agreed)


def offers(data: bytes) -> None:
    """The values of Sec-WebSocket-Extensions."""
    values = data.decode("latin-1").split("\n")
    try:
        deflate.negotiate(values)
    except RemoteProtocolError as refused:
        status = refused.status
    else:
        return
    assert status in {400, 431}, f"answered {status}"


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http1": http1,
    "http2": http2,
    "websocket": websocket,
    "offers": offers,
}
