"""HTTP/2, the server's side of one connection: bytes in, events of its streams out.

The library h2 reads and writes frames, keeps the states of the streams, and answers settings and
pings.  Around it stand what it does not have: bounds on floods (`frame_meter.py`), the rules of a
request's fields (`request.py`), a GOAWAY after which requests in hand are still answered, and
streams over the bound refused one by one.

Frames are given to the library a few at a time, when `next_event` asks, so that whoever asks may
stop at any and serve others.  After ConnectionFailed nothing more is
read; `data_to_send` has the GOAWAY.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from h2 import events, exceptions
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hpack import HPACKError

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.kit.types import Headers
from channels.wire.http2.events import (
    DRAINED,
    WINDOW_OPENED,
    ConnectionFailed,
    Event,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamRefused,
    StreamReset,
)
from channels.wire.http2.frame_meter import (
    END_STREAM,
    FRAME_HEADER_BYTES,
    GOAWAY,
    SETTINGS,
    Flood,
    FrameMeter,
)
from channels.wire.http2.head_decoder import HeadDecoder
from channels.wire.http2.head_encoder import HeadEncoder
from channels.wire.http2.own_frames import goaway_frame, settings_frame
from channels.wire.http2.request import check_trailers, read_request

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Frames that the library gets at once: between two batches others may be served.
STRIDE: Final = 16
NO_LIMIT: Final = 2**31 - 1
#: RFC 9113 section 6.5.2: the initial size.
HEADER_TABLE_BYTES: Final = 4096
#: A block that says how many fields it has is refused with 431; one over so many times that bound
#: ends the connection, whatever it would expand to.
LIST_BYTES_FACTOR: Final = 4
FIELD_OVERHEAD_BYTES: Final = 32
#: The default window of a connection, which no setting changes (section 6.9.2).
INITIAL_WINDOW: Final = 65535
#: Less than this of a long body is not worth a frame: a peer that opens its window by single octets
#: would have one for each.
LEAST_PIECE_BYTES: Final = 256
#: Section 6.8: the last stream of a first GOAWAY, which refuses none.
ANY_STREAM: Final = NO_LIMIT

#: The library's GOAWAY as it writes it when it finds a fault, and its header.
GOAWAY_BYTES: Final = 17
_GOAWAY_HEADER: Final = b"\0\0\x08\x07\0\0\0\0\0"

_PING_BYTES: Final = b"draining"


class Http2Connection:
    """The server's side of one connection."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._meter = FrameMeter(limits)
        self._buffer = bytearray()
        self._now = 0.0
        self._preface_left = len(PREFACE)
        self._events: deque[Event] = deque()
        self._raw: list[bytes] = []
        #: Streams of requests that are not over, as far as the peer knows, each with the octets
        #: that are still to come by its Content-Length; None where it has none.
        self._open: dict[int, int | None] = {}
        #: The highest number of a stream that was or will be answered.
        self.last_stream_id = 0
        self._refuses_from: int | None = None
        self._is_over = False
        self._got_settings_ack = False
        # Fields are judged here, ours are right: the library's own checks took 40 µs a request.
        self._library = library = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        said = {
            SettingCodes.HEADER_TABLE_SIZE: HEADER_TABLE_BYTES,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.http2_stream_window_bytes,
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.http2_max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes
            + FIELD_OVERHEAD_BYTES * limits.max_headers,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        }
        # The library ends the connection over one stream too many; here that stream is refused.
        kept = {**said, SettingCodes.MAX_CONCURRENT_STREAMS: NO_LIMIT}
        library.local_settings = Settings(client=False, initial_values=kept)
        library.encoder = HeadEncoder()  # type: ignore[assignment]
        library.decoder = HeadDecoder(LIST_BYTES_FACTOR * limits.max_header_bytes)
        library.initiate_connection()
        library.clear_outbound_data_buffer()
        self._raw.append(settings_frame(said))
        if (more := limits.http2_window_bytes - INITIAL_WINDOW) > 0:
            library.increment_flow_control_window(more)

    # Input.

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer at a time in seconds; `next_event` tells what they mean."""
        if not self._is_over:
            self._now = now
            self._buffer += data

    def next_event(self) -> Event | None:
        """The next event, or None if it takes more input."""
        while not self._events:
            if self._is_over or not (self._feed() or self._events):
                return None
        return self._events.popleft()

    @property
    def is_inside_head(self) -> bool:
        """True while a request's header block, or the preface, has begun and is not whole."""
        return self._meter.in_head or (self._preface_left > 0 and bool(self._buffer))

    @property
    def is_ready_to_feed(self) -> bool:
        """True if more may be said without more input."""
        return bool(self._events) or len(self._buffer) >= FRAME_HEADER_BYTES

    @property
    def awaits_preface(self) -> bool:
        """True until the client has said that it speaks HTTP/2."""
        return self._preface_left > 0

    def _feed(self) -> bool:
        """Give the library some whole frames; False if there are none."""
        try:
            piece = self._take_preface() or self._take_frames()
            if not piece:
                return False
            for event in self._library.receive_data(piece):
                translate = _TRANSLATE.get(type(event))
                if translate is not None:
                    translate(self, event)
        except Flood as flood:
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, flood.why, flood.reason)
        except exceptions.ProtocolError as error:
            self._break(error)
        return True

    def _take_preface(self) -> bytes:
        left = self._preface_left
        if not left:
            return b""
        piece = bytes(self._buffer[:left])
        del self._buffer[:left]
        self._preface_left -= len(piece)
        return piece

    def _take_frames(self) -> bytes:
        """Up to STRIDE whole frames from the front of the buffer, each counted."""
        buffer, position = self._buffer, 0
        for _ in range(STRIDE):
            if len(buffer) - position < FRAME_HEADER_BYTES:
                break
            size = buffer[position] << 16 | buffer[position + 1] << 8 | buffer[position + 2]
            kind, flags = buffer[position + 3], buffer[position + 4]
            fault = self._size_fault(kind, flags, size)
            if fault:
                if position:
                    break
                # Its payload is not waited for.
                self._fail(ErrorCodes.FRAME_SIZE_ERROR, fault)
                return b""
            end = position + FRAME_HEADER_BYTES + size
            if end > len(buffer):
                break
            if kind == SETTINGS and flags & END_STREAM and not self._got_settings_ack:
                self._got_settings_ack = True
            else:
                self._meter.count(kind, flags, size, self._now)
            if (
                kind == GOAWAY
                and size >= 8
                and not self._meter.in_head
                and not _stream_of(buffer, position)
            ):
                # The library would answer nothing after it; the peer awaits what it asked for.
                if position:
                    break
                del buffer[:end]
                continue
            position = end
        piece = bytes(buffer[:position])
        del buffer[:position]
        return piece

    def _size_fault(self, kind: int, flags: int, size: int) -> str:
        """What is wrong with a frame's size, where the library would say it late or in error."""
        most = self._library.max_inbound_frame_size
        if size > most:
            return f"A frame of {size} bytes: the most is {most}."
        # Section 6.5: "MUST be treated as a connection error (...) of type FRAME_SIZE_ERROR".
        is_full_ack = kind == SETTINGS and flags & END_STREAM and size
        return "An acknowledgement of settings has none." if is_full_ack else ""

    # Of the library's events.

    def _on_request(self, event: Any) -> None:
        stream_id = event.stream_id
        if self._refuses_from is not None and stream_id >= self._refuses_from:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        if len(self._open) >= self._limits.http2_max_streams:
            self._meter.count_reset(self._now)
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self.last_stream_id = stream_id
        self._open[stream_id] = None
        try:
            request = read_request(
                event.headers, self._limits, has_ended=event.stream_ended is not None
            )
        except RemoteProtocolError as error:
            self._events.append(StreamRefused(stream_id, error))
        else:
            self._open[stream_id] = request.content_length
            self._events.append(StreamOpened(stream_id, request))

    def _on_data(self, event: Any) -> None:
        stream_id, size = event.stream_id, len(event.data)
        left = self._open.get(stream_id)
        if left is not None:
            if size > left:
                self._violate(stream_id)
            else:
                self._open[stream_id] = left - size
        if stream_id in self._open:
            self._events.append(
                StreamData(stream_id, bytes(event.data), event.flow_controlled_length)
            )
        elif event.flow_controlled_length:
            self.acknowledge(stream_id, event.flow_controlled_length)

    def _on_trailers(self, event: Any) -> None:
        if event.stream_id not in self._open:
            return
        try:
            check_trailers(event.headers, self._limits)
        except RemoteProtocolError:
            self._violate(event.stream_id)

    def _on_end(self, event: Any) -> None:
        if self._open.get(event.stream_id):
            self._violate(event.stream_id)
        elif event.stream_id in self._open:
            self._events.append(StreamEnded(event.stream_id))

    def _violate(self, stream_id: int) -> None:
        """End a stream whose request, begun in good order, does not go on so.

        RFC 9113 section 8.1.1: malformed requests "MUST be treated as a stream error (...) of type
        PROTOCOL_ERROR", and one is a body of another size than its Content-Length.
        """
        self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        self._events.append(StreamReset(stream_id))
        self._meter.count_reset(self._now)

    def _on_reset(self, event: Any) -> None:
        if not event.remote_reset:
            # A rule was broken that has the library reset the stream.
            self._meter.count_reset(self._now)
        if event.stream_id in self._open:
            del self._open[event.stream_id]
            self._events.append(StreamReset(event.stream_id))

    def _on_window(self, _event: Any) -> None:
        if not self._events or self._events[-1] is not WINDOW_OPENED:
            self._events.append(WINDOW_OPENED)

    def _on_settings(self, _event: Any) -> None:
        # It may have changed every stream's window.
        self._events.append(WINDOW_OPENED)

    def _on_pong(self, event: Any) -> None:
        if event.ping_data == _PING_BYTES:
            self._events.append(DRAINED)

    # The end.

    def _fail(self, code: ErrorCodes, why: str, flood: str = "") -> None:
        with contextlib.suppress(exceptions.ProtocolError):
            self._library.close_connection(code, why.encode()[:128], self.last_stream_id)
        self._end(why, flood)

    def _break(self, error: exceptions.ProtocolError) -> None:
        """End the connection over a rule that the library has."""
        why, code = str(error) or type(error).__name__, error.error_code
        if isinstance(error.__cause__, HPACKError) and code == ErrorCodes.PROTOCOL_ERROR:
            # RFC 9113 section 4.3: "MUST be treated as a connection error (...) of type
            # COMPRESSION_ERROR"; the library says PROTOCOL_ERROR.
            code = ErrorCodes.COMPRESSION_ERROR
        said = self._library.data_to_send()
        if said[-GOAWAY_BYTES:-8] == _GOAWAY_HEADER:
            # The library's own, which has no reason.
            said = said[:-GOAWAY_BYTES]
        self._raw += [said, goaway_frame(self.last_stream_id, code, why.encode()[:128])]
        self._end(why, _flood_of(error))

    def _end(self, why: str, flood: str = "") -> None:
        self._is_over = True
        self._buffer.clear()
        self._events.append(ConnectionFailed(why, flood))

    def drain(self) -> None:
        """Ask the peer to open no more streams; `Drained` comes once it has seen that.

        RFC 9113 section 6.8: a first GOAWAY with the highest number, and "after allowing time for
        any in-flight stream creation", another with the last stream that will be answered.
        """
        self._raw.append(self._library.data_to_send())
        self._raw.append(goaway_frame(ANY_STREAM, ErrorCodes.NO_ERROR))
        self._library.ping(_PING_BYTES)

    def go_away(self) -> None:
        """Tell the peer which of its streams is the last; later ones are refused."""
        self._refuses_from = self.last_stream_id + 1
        self._raw.append(self._library.data_to_send())
        self._raw.append(goaway_frame(self.last_stream_id, ErrorCodes.NO_ERROR))

    # Output.

    def send_head(self, stream_id: int, fields: Headers, *, has_ended: bool) -> None:
        """Send a field section; of a stream that is gone it is dropped."""
        with contextlib.suppress(exceptions.ProtocolError):
            self._library.send_headers(stream_id, fields, end_stream=has_ended)

    def sendable(self, stream_id: int, size: int) -> int:
        """How many of `size` bytes may be sent on a stream now in one frame."""
        library = self._library
        try:
            window = library.local_flow_control_window(stream_id)
        except exceptions.ProtocolError:
            return size
        most = min(window, library.max_outbound_frame_size)
        if most >= size:
            return size
        return most if most >= LEAST_PIECE_BYTES else 0

    def send_data(self, stream_id: int, data: bytes, *, has_ended: bool) -> None:
        """Send as much as `sendable` allows; of a stream that is gone it is dropped."""
        with contextlib.suppress(exceptions.ProtocolError, KeyError):
            self._library.send_data(stream_id, data, end_stream=has_ended)
            self._meter.sent(len(data))

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream at once."""
        self._reset(stream_id, code)
        self._open.pop(stream_id, None)

    def _reset(self, stream_id: int, code: int) -> None:
        with contextlib.suppress(exceptions.ProtocolError):
            self._library.reset_stream(stream_id, code)

    def close(self, stream_id: int) -> None:
        """Forget a stream that both sides have ended."""
        self._open.pop(stream_id, None)

    def acknowledge(self, stream_id: int, credit: int) -> None:
        """Let the peer send so many bytes more."""
        with contextlib.suppress(exceptions.ProtocolError):
            self._library.acknowledge_received_data(credit, stream_id)

    def data_to_send(self) -> bytes:
        """The bytes to write now; empty if there are none."""
        data = self._library.data_to_send()
        if self._raw:
            self._raw.append(data)
            data = b"".join(self._raw)
            self._raw.clear()
        return data


def _flood_of(error: exceptions.ProtocolError) -> str:
    return "http2_header_block" if isinstance(error, exceptions.DenialOfServiceError) else ""


def _stream_of(buffer: bytearray, position: int) -> int:
    return int.from_bytes(buffer[position + 5 : position + 9]) & 0x7FFFFFFF


_TRANSLATE: Final[dict[type, Callable[[Http2Connection, Any], None]]] = {
    events.RequestReceived: Http2Connection._on_request,
    events.DataReceived: Http2Connection._on_data,
    events.TrailersReceived: Http2Connection._on_trailers,
    events.StreamEnded: Http2Connection._on_end,
    events.StreamReset: Http2Connection._on_reset,
    events.WindowUpdated: Http2Connection._on_window,
    events.RemoteSettingsChanged: Http2Connection._on_settings,
    events.PingAckReceived: Http2Connection._on_pong,
}
