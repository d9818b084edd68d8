"""One name for each request, by which its lines in all logs are found.

A trusted proxy's is taken over, so that its log has the same; else one is made.  The application
finds it in scope["request_id"], the log in a context variable, which handlers, tasks and threads of
the request have inherited.
"""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import Context, ContextVar
from typing import Final

from channels.kit.types import Headers, Scope

#: The key in a scope.
REQUEST_ID: Final = "request_id"
#: It is written into logs and compared there: no more than what such names are made of.
_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_current: Final[ContextVar[str]] = ContextVar("channels.request_id", default="")


def new_request_id(headers: Headers, header: bytes) -> str:
    """The id that a trusted proxy has given in this field, else a new one.

    Args:
        header: In lower case; empty if the peer is not trusted.
    """
    if header:
        values = [value for name, value in headers if name == header]
        # Two of them: one was not the proxy's.
        if len(values) == 1 and _ID.fullmatch(values[0]):
            return values[0].decode("ascii")
    return secrets.token_hex(16)


def request_id_of(scope: Scope) -> str:
    """The id of a connection or request; "" if it has none."""
    return str(scope.get(REQUEST_ID, ""))


def enter_request(context: Context, scope: Scope) -> None:
    """Let the code that runs in this context log the request's id."""
    if found := scope.get(REQUEST_ID):
        context.run(_current.set, found)


def current_request_id() -> str:
    """The id of the request that the running code belongs to; "" if there is none."""
    return _current.get()


class RequestIdFilter(logging.Filter):
    """Gives each record the attribute `request_id`, for `%(request_id)s` in a format.

    "-" where the code that logs belongs to no request.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        if not hasattr(record, REQUEST_ID):
            record.request_id = current_request_id() or "-"
        return True
