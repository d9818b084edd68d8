"""Whether HTTP/2 is spoken: the h2 library is an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from channels.exceptions import InvalidOption
from channels.server.endpoints import Endpoint
from channels.server.options import ServerOptions

if TYPE_CHECKING:
    from channels.server.http2 import Http2Session


def load_http2(options: ServerOptions, endpoints: Sequence[Endpoint]) -> type[Http2Session] | None:
    """The class of sessions that speak HTTP/2; None if nobody is to be offered it.

    Raises:
        InvalidOption: If it is asked for, and the library is not installed.
    """
    asked = options.http2
    if asked is False or (asked is None and not any(each.tls for each in endpoints)):
        return None
    if importlib.util.find_spec("h2") is None:
        if asked:
            raise InvalidOption(
                "--http2 needs the package h2, which is not installed: pip install h2."
            )
        return None
    from channels.server.http2 import Http2Session  # noqa: PLC0415 - needs the library

    return Http2Session
