"""What can be set about the interface server, beside the options of the server that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from channels.kit.limits import KIB, MIB
from channels.kit.options import check_options, option

#: Time for a whole response, as Daphne 1 had it.  The server itself has no such bound by default.
HTTP_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class InterfaceOptions:
    """How connections are turned into messages of a channel layer."""

    ws_protocol: tuple[str, ...] = option(
        (),
        help="WebSocket subprotocol that is agreed to where a client offers it; may be given "
        "several times",
    )
    inline_body_bytes: int = option(
        64 * KIB,
        unit="bytes",
        minimum=0,
        help="largest request body that http.request carries itself; a larger one follows on its "
        "body_channel in pieces",
    )
    response_buffer_bytes: int = option(
        16 * MIB,
        unit="bytes",
        minimum=2 * MIB,
        help="most that waits of one response for a slow client: workers make Django's views wait "
        "before that; a consumer that sends more by itself ends the response, whose client sees "
        "that it is not whole",
    )
    full_timeout: float = option(
        5.0,
        unit="seconds",
        minimum=0.0,
        help="how long a message of a WebSocket is offered to a full queue while its socket is "
        "left unread; then the socket is closed with 1013",
    )

    def __post_init__(self) -> None:
        check_options(self)
