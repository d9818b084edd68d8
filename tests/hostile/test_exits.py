"""An application that raises SystemExit or KeyboardInterrupt ends its own request, no more."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.processes import Child

SITE = """
import asyncio, os
from django.conf import settings
settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="site1", MIDDLEWARE=[])
import django
django.setup()
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path, re_path
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter

def leave(kind):
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[kind]("as asked")

async def leave_later(kind):
    await asyncio.sleep(0)
    leave(kind)

def sync_view(request, kind):
    leave(kind)

async def async_view(request, kind):
    await leave_later(kind)

def stream(request, kind):
    def parts():
        yield leave(kind)
    return StreamingHttpResponse(parts())

async def own_task(request, kind):
    await asyncio.create_task(leave_later(kind))

views = [sync_view, async_view, stream, own_task]
urlpatterns = [path(f"{view.__name__}/<kind>", view) for view in views]
urlpatterns.append(path("well", lambda request: HttpResponse(str(os.getpid()))))

class Page(AsyncHttpConsumer):
    async def handle(self, body):
        leave(self.scope["url_route"]["kwargs"]["kind"])

class Sync(WebsocketConsumer):
    def connect(self):
        if "connect" in self.scope["path"]:
            leave(self.scope["url_route"]["kwargs"]["kind"])
        self.accept()
    def receive(self, text_data=None, bytes_data=None):
        leave(self.scope["url_route"]["kwargs"]["kind"])

class Async(AsyncWebsocketConsumer):
    async def connect(self):
        if "connect" in self.scope["path"]:
            leave(self.scope["url_route"]["kwargs"]["kind"])
        await self.accept()
    async def receive(self, text_data=None, bytes_data=None):
        if "later" in self.scope["path"]:
            await leave_later(self.scope["url_route"]["kwargs"]["kind"])
        leave(self.scope["url_route"]["kwargs"]["kind"])

async def bare(scope, receive, send):
    leave(scope["url_route"]["kwargs"]["kind"])

application = ProtocolTypeRouter({
    "http": URLRouter([path("bare/<kind>", bare), path("page/<kind>", Page),
                       re_path("", get_asgi_application())]),
    "websocket": URLRouter([path("bare/<kind>", bare), re_path("^sync/.*?(?P<kind>[a-z]+)$", Sync),
                            re_path("^async/.*?(?P<kind>[a-z]+)$", Async)]),
})
"""
KINDS = ["exit", "interrupt"]


class Site:
    def __init__(self, child: Child) -> None:
        self.child = child
        self.port = int(child.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "site1.py").write_text(SITE)
    words = ("-m", "channels", "serve", "site1:application", "--port", "0")
    with Child(*words, cwd=Path(folder)) as child:
        yield Site(child)


@pytest.fixture(autouse=True)
def same_process_serves_on(site: Site) -> Iterator[None]:
    before = site.get("/well")
    assert before[0] == 200
    yield
    assert site.get("/well") == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["bare", "page", "sync_view", "async_view", "stream", "own_task"])
def test_a_request_that_raises_an_exit_is_answered_with_500(
    site: Site, place: str, kind: str
) -> None:
    assert site.get(f"/{place}/{kind}")[0] == 500
    site.child.wait_for(f"Exception inside application: GET /{place}/{kind}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["bare", "sync/connect", "async/connect"])
def test_a_handshake_that_raises_an_exit_is_refused(site: Site, place: str, kind: str) -> None:
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(f"ws://127.0.0.1:{site.port}/{place}/{kind}"),
    ):
        pass
    assert refusal.value.response.status_code == 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["sync", "async", "async/later"])
def test_a_websocket_that_raises_an_exit_is_closed_with_1011(
    site: Site, place: str, kind: str
) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/{place}/{kind}") as socket:
        socket.send("leave")
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_still_stops_the_server(site: Site, number: int, tmp_path: Path) -> None:
    (tmp_path / "site1.py").write_text(SITE)
    words = ("-m", "channels", "serve", "site1:application", "--port", "0")
    with Child(*words, cwd=tmp_path) as child:
        assert Site(child).get("/own_task/interrupt")[0] == 500
        child.process.send_signal(number)
        assert child.wait() == 0
