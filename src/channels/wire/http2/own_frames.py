"""Frames that are written here and not by the library h2."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from channels.wire.http2.frame_meter import GOAWAY, SETTINGS


def settings_frame(values: Mapping[SettingCodes, int]) -> bytes:
    """SETTINGS with these values."""
    payload = b"".join(struct.pack("!HL", int(code), value) for code, value in values.items())
    return struct.pack("!HBBBL", 0, len(payload), SETTINGS, 0, 0) + payload


def goaway_frame(last_stream_id: int, code: int, why: bytes = b"") -> bytes:
    """GOAWAY; `why` is debug data for whoever reads a trace."""
    payload = struct.pack("!LL", last_stream_id, int(code)) + why
    return struct.pack("!HBBBL", 0, len(payload), GOAWAY, 0, 0) + payload


def refusal(why: str) -> bytes:
    """What a client gets in place of a session: settings, and a GOAWAY that says why."""
    return settings_frame({}) + goaway_frame(0, ErrorCodes.ENHANCE_YOUR_CALM, why.encode())
