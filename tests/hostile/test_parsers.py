"""No parse of a client's text holds the loop for over 5 ms, the worst of its size included.

Cookies have their own in `tests/test_sessions.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import path

from channels.exceptions import NoRouteFound
from channels.kit.types import Receive, Scope, Send
from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from tests.applications import Recorder, cpu_seconds_between_turns

LONGEST = 0.005
#: The bounds of one header field and of a request line.
SIZE = 16_384

ORIGINS = {
    "scheme": "a" * SIZE,
    "host": "http://" + "a" * SIZE,
    "dots": "http://" + "." * SIZE,
    "labels": "http://" + "a." * (SIZE // 2) + "\\",
    "address": "http://[" + ":" * SIZE + "]",
    "port": "http://a:" + "1" * SIZE,
    "path": "http://a/" + "a/" * (SIZE // 2),
}
PATHS = {
    "slashes": "/" * SIZE,
    "segments": "/chat/a/" + "b/" * (SIZE // 2),
    "nested": "/nested/" + "a/" * (SIZE // 2),
    "digits": "/" + "1" * SIZE + "/",
    "line breaks": "/chat/" + "\n" * SIZE,
}


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
async def test_an_origin(origin: str) -> None:
    patterns = [".example.com", "https://partner.example:8443"] * 10
    scope: Scope = {"type": "websocket", "headers": [(b"origin", origin.encode())]}
    stretches = await cpu_seconds_between_turns(
        OriginValidator(Recorder(), patterns), lambda: scope
    )
    assert max(stretches) < LONGEST


@pytest.mark.parametrize("worst", PATHS.values(), ids=PATHS)
async def test_a_path(worst: str) -> None:
    inner: Any = Recorder()
    nested: Any = URLRouter([path("<path:rest>/end/", inner)])
    router = URLRouter(
        [
            path("chat/<slug:room>/<str:name>/<path:rest>/end/", inner),
            path("<uuid:key>/", inner),
            path("<int:number>/", inner),
            path("nested/", nested),
        ]
    )

    async def application(scope: Scope, receive: Receive, send: Send) -> Any:
        try:
            await router(scope, receive, send)
        except (NoRouteFound, ValueError):
            inner.scopes.clear()

    scope: Scope = {"type": "websocket", "path": worst, "headers": []}
    stretches = await cpu_seconds_between_turns(application, lambda: scope)
    assert max(stretches) < LONGEST
