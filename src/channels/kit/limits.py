"""The bounds that hold from the first day: how large, how many, how long.

Everything that a peer can make grow stands here, with its default.  A protocol machine takes
`Limits`; the shell around it, which has a clock, takes `Timeouts`.
"""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option

KIB = 1024
MIB = 1024 * KIB

#: What one connection may take of the event loop at a stretch, in milliseconds.
STRETCH_MS = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and counts, per connection unless said otherwise."""

    max_request_line_bytes: int = option(
        16 * KIB, unit="bytes", minimum=256, help="longest request line; answered with 414"
    )
    max_header_bytes: int = option(
        64 * KIB, unit="bytes", minimum=KIB, help="largest header block; answered with 431"
    )
    max_header_field_bytes: int = option(
        16 * KIB,
        unit="bytes",
        minimum=256,
        help="longest header field or trailer, name and value; answered with 431",
    )
    max_headers: int = option(
        100, unit="fields", minimum=8, help="most header fields; answered with 431"
    )
    max_body_bytes: int | None = option(
        None,
        unit="bytes",
        minimum=0,
        none="no limit: the application decides",
        help="largest request body, counted as it arrives; answered with 413",
    )
    request_buffer_bytes: int = option(
        64 * KIB,
        unit="bytes",
        minimum=1,
        flag="--request-buffer-size",
        help="most of a request's body that one http.request carries",
    )
    min_body_rate: int = option(
        100,
        unit="bytes per second",
        minimum=0,
        help="what a request's body and trailers bring at least, averaged over each body_timeout "
        "in which the server reads them; answered with 408",
    )
    max_message_bytes: int | None = option(
        MIB,
        unit="bytes",
        minimum=1,
        none="no limit",
        flag="--websocket-max-message-size",
        help="largest WebSocket message after decompression; closed with 1009",
    )
    max_frame_bytes: int | None = option(
        MIB,
        unit="bytes",
        minimum=125,
        none="no limit",
        flag="--websocket-max-frame-size",
        help="largest WebSocket frame; closed with 1009",
    )
    max_fragments: int = option(
        4096,
        unit="frames",
        minimum=1,
        help="most frames of one WebSocket message; closed with 1008",
    )
    max_control_rate: int | None = option(
        100,
        unit="frames per second",
        minimum=1,
        none="no limit",
        flag="--websocket-max-control-rate",
        help="most pings and pongs of one WebSocket, averaged over 10 seconds; closed with 1008",
    )
    min_frame_rate: int = option(
        100,
        unit="bytes per second",
        minimum=0,
        flag="--websocket-min-frame-rate",
        help="what a WebSocket frame that has begun brings at least, averaged over each "
        "frame_timeout, until it is whole; a slower client is cut off",
    )
    stretch_ms: float = option(
        STRETCH_MS,
        unit="milliseconds",
        minimum=0.1,
        help="time that one WebSocket's frames take of the event loop before others are served",
    )
    read_ahead_bytes: int = option(
        64 * KIB,
        unit="bytes",
        minimum=KIB,
        help="pipelined requests read ahead of an answer; then reading waits",
    )
    max_connections: int | None = option(
        None,
        unit="connections",
        minimum=1,
        none="as many as descriptors allow",
        help="open connections of one process; beyond it new ones are answered with 503",
    )
    max_connections_per_address: int | None = option(
        None,
        unit="connections",
        minimum=1,
        none="no limit",
        help="open connections from one address (of IPv6 its first 64 bits) that is no trusted "
        "proxy's; beyond it new ones are answered with 429",
    )
    max_websockets_per_address: int | None = option(
        None,
        unit="WebSockets",
        minimum=1,
        none="no limit",
        flag="--websocket-max-per-address",
        help="open WebSockets of one client's address; beyond it handshakes are answered with 429",
    )
    max_handshake_rate: float | None = option(
        None,
        unit="handshakes per second",
        minimum=0.01,
        none="no limit",
        flag="--websocket-max-handshake-rate",
        help="WebSocket handshakes from one client's address, averaged over 10 seconds; beyond it "
        "they are answered with 429",
    )
    max_message_rate: float | None = option(
        None,
        unit="messages per second",
        minimum=0.1,
        none="no limit",
        flag="--websocket-max-message-rate",
        help="messages of one WebSocket, averaged over 10 seconds; closed with 1008",
    )
    max_message_byte_rate: int | None = option(
        None,
        unit="bytes per second",
        minimum=100,
        none="no limit",
        flag="--websocket-max-byte-rate",
        help="bytes of the messages of one WebSocket, averaged over 10 seconds, though one message "
        "may have max_message_bytes; closed with 1008",
    )
    write_buffer_bytes: int = option(
        256 * KIB,
        unit="bytes",
        minimum=KIB,
        help="unsent bytes above which the application's send() waits",
    )
    http2_max_streams: int = option(
        100,
        unit="streams",
        minimum=1,
        help="open requests and WebSockets of one HTTP/2 connection; beyond it they are refused",
    )
    http2_stream_window_bytes: int = option(
        256 * KIB,
        unit="bytes",
        minimum=KIB,
        maximum=2**31 - 1,
        help="what a client may send on one HTTP/2 stream before the application has taken it",
    )
    http2_window_bytes: int = option(
        MIB,
        unit="bytes",
        minimum=64 * KIB,
        maximum=2**31 - 1,
        help="the same for all streams of one HTTP/2 connection together",
    )
    http2_max_reset_rate: float | None = option(
        20,
        unit="streams per second",
        minimum=0.1,
        none="no limit",
        help="HTTP/2 streams that one client opens and resets, averaged over 10 seconds; beyond it "
        "the connection ends",
    )
    http2_max_control_rate: float | None = option(
        100,
        unit="frames per second",
        minimum=1,
        none="no limit",
        help="HTTP/2 frames of one client that bring neither a request nor a body, averaged over "
        "10 seconds (DATA of under 64 bytes counts a tenth); beyond it the connection ends",
    )
    #: Whether HTTP/1.1 without a Host field is refused, as RFC 9112 section 3.2 demands; under the
    #: names of Daphne, which does not, clients of old are served.
    requires_host: bool = True

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Durations, in seconds.  None means: never."""

    header_timeout: float | None = option(
        10.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="from the first byte of a request to the end of its headers; answered with 408",
    )
    keep_alive: float | None = option(
        5.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="silence between two requests, or before the first, after which HTTP closes",
    )
    body_timeout: float | None = option(
        30.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="silence inside a request's body while it is being read; answered with 408",
    )
    unanswered_notice: float | None = option(
        60.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="time after which the log names a request that the application has not begun to "
        "answer, once",
    )
    http_timeout: float | None = option(
        None,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="time for a whole response; answered with 503, or cut once it has begun",
    )
    handshake_timeout: float | None = option(
        5.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        flag="--websocket-connect-timeout",
        help="time for the application to accept or refuse a WebSocket; answered with 403",
    )
    websocket_timeout: float | None = option(
        86400.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        flag="--websocket-timeout",
        help="life of a WebSocket, after which it is closed with 1000",
    )
    ping_interval: float | None = option(
        20.0,
        unit="seconds",
        minimum=0.01,
        none="never ping",
        help="how often a WebSocket is pinged",
    )
    ping_timeout: float | None = option(
        20.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="wait for a pong, after which the connection counts as dead (1006)",
    )
    frame_timeout: float | None = option(
        20.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        flag="--websocket-frame-timeout",
        help="time for a WebSocket frame that has begun; a client that is slower than "
        "min_frame_rate is then cut off",
    )
    close_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.01,
        flag="--application-close-timeout",
        help="time for a peer's close frame, and for an application whose client has gone",
    )
    write_timeout: float | None = option(
        30.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="time without progress after which a client that does not read is cut off",
    )
    startup_timeout: float | None = option(
        60.0,
        unit="seconds",
        minimum=0.01,
        none="never",
        help="time for the application to answer lifespan.startup; then it is served without",
    )
    shutdown_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.0,
        help="time for running requests when the server stops, and again for lifespan.shutdown",
    )

    @property
    def stop_seconds(self) -> float:
        """The longest that a process takes to end, from the signal on.

        `shutdown_timeout` for requests and WebSockets, 2 s for handlers of disconnects,
        `shutdown_timeout` (at least 2 s) for the lifespan's shutdown, 1 s each for what is then
        cancelled: handlers, the lifespan, other tasks; 1 s for the log and for functions of atexit.
        """
        return self.shutdown_timeout + max(self.shutdown_timeout, 2.0) + 6.0

    def __post_init__(self) -> None:
        check_options(self)
