"""Who a client without a session has shown itself to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

#: Where TokenAuthMiddleware leaves it in the scope, for AccessMiddleware.
CREDENTIAL: Final = "channels.credential"


@dataclass(frozen=True, slots=True)
class Credential:
    """The user of a token or a ticket, and how long that holds."""

    user: Any
    #: In seconds since the epoch; None: it does not expire.
    expires_at: float | None = None
    #: The digest of the session in which it was issued, or "".
    session: str = ""
    #: Asks the site once more for the user of a token; None for a ticket, which is used up.
    look_again: Callable[[], Awaitable[Credential | None]] | None = None
