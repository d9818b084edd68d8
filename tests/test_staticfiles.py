"""Static files before the application, under their former names."""

from __future__ import annotations

from typing import Any

import pytest

from channels.kit.types import Scope
from channels.staticfiles import StaticFilesHandler, StaticFilesWrapper
from tests.applications import Recorder
from tests.test_http import get, request
from tests.test_middleware import TwoStepMiddleware


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Any) -> None:
    (tmp_path / "chat.css").write_text("body {}")
    settings.STATICFILES_DIRS = [tmp_path]


@pytest.mark.parametrize("kind", [StaticFilesHandler, StaticFilesWrapper])
async def test_what_lies_below_static_url_is_served(kind: Any) -> None:
    recorder = Recorder()
    start, body = await get(kind(recorder), request("/static/chat.css"))
    assert (start["status"], body) == (200, b"body {}")
    start, _ = await get(kind(recorder), request("/static/missing.css"))
    assert start["status"] == 404
    assert recorder.scopes == []


@pytest.mark.parametrize("kind", [StaticFilesHandler, StaticFilesWrapper])
@pytest.mark.parametrize(
    "scope", [request("/chat/"), {"type": "websocket", "path": "/static/chat.css"}]
)
async def test_everything_else_goes_to_the_application(kind: Any, scope: Scope) -> None:
    recorder = Recorder()
    await kind(TwoStepMiddleware(recorder))(scope, None, None)
    assert recorder.scope == dict(scope, seen=True)


async def test_a_chosen_handler() -> None:
    class Teapot:
        def __init__(self, application: Any) -> None:
            self.application = application

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 418})

    start, _ = await get(StaticFilesWrapper(Recorder(), Teapot), request("/static/chat.css"))
    assert start["status"] == 418
