"""What happened, for access logs and metrics: one record for each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from channels.kit.types import Address

Kind: TypeAlias = Literal[
    "http",
    "websocket.connecting",
    "websocket.connected",
    "websocket.rejected",
    "websocket.disconnected",
]


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One event of a connection, whatever protocol it speaks.

    All text comes from the client: whoever writes it to a log must escape control characters.
    """

    kind: Kind
    method: str
    #: The target as it was sent, escapes and query included, but for the secrets that
    #: `access_log_redact` names: printable ASCII by the rules of HTTP.
    path: str
    #: HTTP status, or a disconnected WebSocket's close code; None where there is none (yet).
    status: int | None
    #: Bytes of the body that were sent, without framing.
    size: int | None
    client: Address | None
    #: Seconds since the request's head was complete.
    duration: float
    #: Why the server refused it, in a sentence; "" if the application has answered.
    reason: str = ""
    #: What all lines of the request have in the log; "" without the option `request_ids`.
    request_id: str = ""
