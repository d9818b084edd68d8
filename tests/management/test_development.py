"""`runserver` as a browser meets it: origins that are checked, and HTTPS."""

from __future__ import annotations

import ssl
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.tutorial.project import Project

PATIENCE_SECONDS = 20.0

APPLICATION = """\
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path


class Whoami(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        visits = self.scope["session"].get("visits")
        await self.send_json({"scheme": self.scope["scheme"], "visits": visits})


def page(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"secure: {request.is_secure()}")


urlpatterns = [path("", page)]
consumers = AuthMiddlewareStack(URLRouter([path("ws/", Whoami.as_asgi())]))
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": consumers})
"""
CHECKED = APPLICATION.replace(
    '"websocket": consumers', '"websocket": OriginValidator(consumers, ["https://partner.example"])'
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(ASGI_APPLICATION="mysite.pages.application", ROOT_URLCONF="mysite.pages")
    project.write("mysite/pages.py", APPLICATION)
    project.manage("migrate")
    return project


def opens(port: int, origin: str | None) -> bool:
    found = Origin(origin) if origin is not None else None
    try:
        with connect(f"ws://127.0.0.1:{port}/ws/", origin=found, open_timeout=PATIENCE_SECONDS):
            return True
    except InvalidStatus as refused:
        return refused.response.status_code != 403


def test_a_page_of_another_site_opens_no_websocket(project: Project) -> None:
    with project.serve() as server:
        port = server.wait_for_port()
        assert opens(port, f"http://127.0.0.1:{port}")
        # A front end's own server, and programs.
        assert opens(port, "http://localhost:5173")
        assert opens(port, None)
        assert not opens(port, "https://evil.example")
        server.wait_for(r"'https://evil\.example' is not allowed")
        server.wait_for(r"add the host to ALLOWED_HOSTS, or run it with --any-origin")


def test_a_page_of_any_site_may_where_one_says_so(project: Project) -> None:
    with project.serve("0", "--noreload", "--any-origin") as server:
        assert opens(server.wait_for_port(), "https://evil.example")


def test_an_application_that_checks_origins_itself_is_left_alone(project: Project) -> None:
    project.write("mysite/pages.py", CHECKED)
    with project.serve() as server:
        port = server.wait_for_port()
        assert opens(port, "https://partner.example")
        assert not opens(port, f"http://127.0.0.1:{port}")


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def test_https_with_cookies_and_websockets(project: Project) -> None:
    project.set(SESSION_COOKIE_SECURE=True, SECURE_SSL_REDIRECT=True)
    certificate = project.folder.parent / "data/channels/development.pem"
    found: list[Any] = []
    for _ in range(2):
        with project.serve("0", "--noreload", "--https") as server:
            port = int(server.wait_for(r"development server at https://127\.0\.0\.1:(\d+)/")[1])
            server.wait_for(r"the browser will say once that the connection is not private")
            server.wait_for(r"Listening on")
            found.append(certificate.read_bytes())
            context = trusting(certificate)
            page = HTTPSConnection("localhost", port, context=context, timeout=PATIENCE_SECONDS)
            page.request("GET", "/")
            answer = page.getresponse()
            assert answer.read() == b"secure: True"
            cookie = answer.headers["Set-Cookie"]
            assert "Secure" in cookie
            page.close()
            with connect(
                f"wss://127.0.0.1:{port}/ws/",
                ssl=context,
                additional_headers={"Cookie": cookie.partition(";")[0]},
                origin=Origin(f"https://localhost:{port}"),
                open_timeout=PATIENCE_SECONDS,
            ) as socket:
                assert socket.recv() == '{"scheme": "wss", "visits": 1}'
    assert found[0] == found[1], "kept for the next start"


def test_https_without_asgi(project: Project) -> None:
    with project.serve("0", "--noreload", "--noasgi", "--https") as server:
        server.wait_for(r"--https is for the ASGI server: leave --noasgi out")
