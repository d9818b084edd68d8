"""Django's HTTP handling under its former names, alone and among other routes."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any

import pytest
from django import urls
from django.http import HttpRequest, HttpResponse

from channels.http import AsgiHandler, AsgiRequest
from channels.kit.types import Message, Scope
from channels.routing import ProtocolTypeRouter, URLRouter
from tests.applications import Recorder

re_path: Any = urls.re_path
path: Any = urls.path


def whoami(request: HttpRequest) -> HttpResponse:
    """Says, and remembers, who asks."""
    owner = request.GET.get("owner") or request.session.get("owner", "nobody")
    request.session["owner"] = owner
    return HttpResponse(owner)


async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


urlpatterns = [urls.path("whoami/", whoami), urls.path("echo/", echo)]


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]


def request(url: str, query: bytes = b"", cookie: str = "", method: str = "GET") -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": url,
        "query_string": query,
        "headers": [(b"host", b"testserver"), (b"cookie", cookie.encode())],
    }


async def get(application: Any, scope: Scope, body: bytes = b"") -> tuple[Message, bytes]:
    """The start of the response, and its body."""
    events: asyncio.Queue[Message] = asyncio.Queue()
    events.put_nowait({"type": "http.request", "body": body})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, events.get, send)
    return sent[0], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("handler", [AsgiHandler, AsgiHandler()])
async def test_the_handler_as_the_last_route(handler: Any) -> None:
    recorder = Recorder()
    router = ProtocolTypeRouter(
        {"http": URLRouter([path("events/", recorder), re_path(r"", handler)])}
    )
    start, body = await get(router, request("/echo/", method="POST"), b"heard")
    assert (start["status"], body) == (200, b"heard")
    assert recorder.scopes == []


async def test_the_handler_in_two_steps() -> None:
    async def application(scope: Scope, receive: Any, send: Any) -> None:
        await AsgiHandler(scope)(receive, send)

    start, body = await get(application, request("/echo/", method="POST"), b"heard")
    assert (start["status"], body) == (200, b"heard")


async def test_requests_do_not_see_each_others_sessions() -> None:
    """Two users, a hundred requests each, interleaved in one handler."""
    handler = AsgiHandler()
    cookies = {}
    for owner in ("ada", "bob"):
        start, _ = await get(handler, request("/whoami/", f"owner={owner}".encode()))
        (cookie,) = (value for name, value in start["headers"] if name == b"Set-Cookie")
        cookies[owner] = cookie.decode().partition(";")[0]

    async def visit(owner: str) -> None:
        start, body = await get(handler, request("/whoami/", cookie=cookies[owner]))
        assert (start["status"], body) == (200, owner.encode())

    for _ in range(5):
        await asyncio.gather(*(visit(owner) for _ in range(20) for owner in cookies))


@pytest.mark.parametrize("body", [b"name=value", BytesIO(b"name=value")])
def test_a_request_of_a_scope(body: Any) -> None:
    scope = request("/echo/", b"q=1", method="POST")
    scope["headers"].append((b"content-type", b"application/x-www-form-urlencoded"))
    made = AsgiRequest(scope, body)
    assert (made.path, made.GET["q"], made.POST["name"]) == ("/echo/", "1", "value")
