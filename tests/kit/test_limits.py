"""The bounds that hold without any setting, and that each says what it is."""

from __future__ import annotations

import pytest

from channels.kit.limits import KIB, MIB, Limits, Timeouts
from channels.kit.options import options_of

#: What a client meets if nobody has set anything; a change here is a change for every deployment.
BOUNDS = {
    "max_message_bytes": MIB,
    "max_frame_bytes": MIB,
    "max_header_bytes": 64 * KIB,
    "max_header_field_bytes": 16 * KIB,
    "max_headers": 100,
    "max_request_line_bytes": 16 * KIB,
    "max_fragments": 4096,
    "max_control_rate": 100,
    "min_frame_rate": 100,
    "min_body_rate": 100,
    "unanswered_notice": 60,
    "stretch_ms": 5,
    "read_ahead_bytes": 64 * KIB,
    "request_buffer_bytes": 64 * KIB,
    "write_buffer_bytes": 256 * KIB,
    "http2_max_streams": 100,
    "http2_stream_window_bytes": 256 * KIB,
    "http2_window_bytes": MIB,
    "http2_max_reset_rate": 20,
    "http2_max_control_rate": 100,
    "handshake_timeout": 5,
    "keep_alive": 5,
    "header_timeout": 10,
    "body_timeout": 30,
    "ping_interval": 20,
    "ping_timeout": 20,
    "frame_timeout": 20,
    "close_timeout": 10,
    "write_timeout": 30,
    "startup_timeout": 60,
    "shutdown_timeout": 10,
    "websocket_timeout": 86400,
}
#: Off unless asked for: the application, or the system, bounds these.
UNBOUNDED = {
    "max_body_bytes",
    "max_connections",
    "max_connections_per_address",
    "max_websockets_per_address",
    "max_handshake_rate",
    "max_message_rate",
    "max_message_byte_rate",
    "http_timeout",
}


def test_what_holds_without_a_setting() -> None:
    defaults = {
        option.name: option.default for table in (Limits, Timeouts) for option in options_of(table)
    }
    assert defaults == BOUNDS | dict.fromkeys(UNBOUNDED)


@pytest.mark.parametrize("table", [Limits, Timeouts])
def test_each_has_a_unit_a_least_value_and_a_meaning_of_none(table: type) -> None:
    for option in options_of(table):
        said = option.declaration
        assert said.unit, option.name
        assert said.help, option.name
        assert said.minimum is not None, option.name
        assert option.default is not None or said.none, option.name
