"""Django's HTTP handling under the names that Channels 2 and 3 gave it.

Django serves ASGI by itself since its version 3; these names remain for projects that route to
them, as in `URLRouter([path("events/", Events), re_path("", AsgiHandler)])`.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import IO, Any

from django.apps import apps
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler, ASGIRequest

from channels.kit.types import Receive, Scope, Send


class AsgiRequest(ASGIRequest):
    """A Django request made from a scope, `body` being bytes or an open file."""

    def __init__(self, scope: Scope, body: bytes | IO[bytes] = b"") -> None:
        super().__init__(scope, BytesIO(body) if isinstance(body, bytes) else body)


class AsgiHandler:
    """Django's views as an application; `AsgiHandler` and `AsgiHandler()` may both be routed to."""

    def __init__(self, scope: Scope | None = None) -> None:
        self.scope = scope

    async def __call__(self, *arguments: Any) -> None:
        """Take (scope, receive, send), or (receive, send) if the scope was given before."""
        if self.scope is not None:
            arguments = (self.scope, *arguments)
        scope, receive, send = arguments
        await _handle(scope, receive, send)


async def _handle(scope: Scope, receive: Receive, send: Send) -> None:
    await _django()(scope, receive, send)


@cache
def _django() -> Any:
    # On the first request, because settings and models may not be ready at import; once they are,
    # another `django.setup()` would undo what others did to the loggers since.
    return ASGIHandler() if apps.ready else get_asgi_application()
