"""Tickets: what a page shows in a WebSocket's address where neither cookie nor header can go.

    wss://socket.example/room/?ticket=...

An address is written to logs, so a ticket is worth little: it is signed with SECRET_KEY, lives for
half a minute, and is good for one connection, which Django's default cache remembers.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core import signing
from django.core.cache import cache
from django.utils.crypto import constant_time_compare

from channels.security.access_register import digest_of, hash_of, user_key_of
from channels.security.credential import Credential

#: How long a ticket can be redeemed.  Processes remember for as long whose access has ended.
TICKET_SECONDS: Final = 30.0
_SALT: Final = "channels.security.tickets"
#: Key of the payload -> what it holds; short, because the ticket stands in an address.
_USER, _PASSWORD, _SESSION, _EXPIRES, _NONCE = "u", "p", "s", "e", "n"


def issue_ticket(
    user: Any, *, session_key: str | None = None, seconds: float = TICKET_SECONDS
) -> str:
    """A ticket for one connection of this user, in characters that need no escape in a query.

    Args:
        session_key: `request.session.session_key`: the connection then ends with that session.
        seconds: How long it can be redeemed.

    Raises:
        TypeError: If the user is not logged in.
        ValueError: If it could never be redeemed.
    """
    if not getattr(user, "is_authenticated", False) or user.pk is None:
        raise TypeError(f"A ticket is for a user who is logged in: found {user!r}.")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds!r}: expected more than 0.")
    payload = {
        _USER: user_key_of(user),
        _PASSWORD: _password_mark(user),
        _EXPIRES: time.time() + seconds,
        _NONCE: secrets.token_urlsafe(12),
    }
    if session_key:
        payload[_SESSION] = digest_of(session_key)
    return signing.dumps(payload, salt=_SALT)


def redeem_ticket(ticket: str) -> Credential | None:
    """Whom a ticket lets in; None if it is forged, expired or used, or its user may not log in.

    Blocks on the cache and the database.
    """
    try:
        payload = signing.loads(ticket, salt=_SALT)
    except signing.BadSignature:
        return None
    left = payload[_EXPIRES] - time.time()
    used = f"channels.ticket.{hashlib.sha256(payload[_NONCE].encode()).hexdigest()}"
    # `add` is atomic: of two connections with one ticket, one gets in.
    if left <= 0 or not cache.add(used, 1, math.ceil(left) + 1):
        return None
    user = get_user_model()._default_manager.filter(pk=payload[_USER]).first()
    if user is None or not user.is_active:
        return None
    if not constant_time_compare(payload[_PASSWORD], _password_mark(user)):
        return None
    return Credential(user, session=payload.get(_SESSION, ""))


def _password_mark(user: Any) -> str:
    """Changes with the password; tells nothing that a session is checked by."""
    return hashlib.sha256(hash_of(user).encode()).hexdigest()[:16]
