"""`manage.py runserver`, run as a developer runs it: over real sockets, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from channels import __version__
from channels.management.commands.runserver import Command
from tests.processes import Child, free_port
from tests.tutorial.browsing import get
from tests.tutorial.project import Project

PATIENCE_SECONDS = 20.0

APPLICATION = """\
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()
EDITION = 1


async def application(scope, receive, send):
    path = scope["path"]
    if scope["type"] == "websocket":
        await receive()
        if path == "/refused":
            return await send({"type": "websocket.close"})
        if path == "/slow":
            await asyncio.sleep(600)
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"edition {EDITION}"})
        if path == "/thread":
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        if path == "/deaf":
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    pass
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.sleep(600)
    elif path == "/sync":
        print("sleeping", flush=True)
        await sync_to_async(time.sleep)(600)
    elif path == "/sleep":
        await asyncio.sleep(600)
    elif path == "/script":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})
    else:
        await django_application(scope, receive, send)
"""


SECOND_EDITION = APPLICATION.replace("EDITION = 1", "EDITION = 2")
UNCALLED = """\
from channels.consumer import AsyncConsumer
from channels.routing import URLRouter
from django.urls import path


class Chat(AsyncConsumer):
    pass


application = URLRouter([path("a/", Chat.as_asgi)])
"""
#: What pages.py may become while it is edited -> what is shown.
MISTAKES = [
    ("1 / 0\n", "ZeroDivisionError"),
    ("import mysite.nowhere\n", r"^ModuleNotFoundError: No module named 'mysite\.nowhere'$"),
    ("from mysite import nothing\n", "^ImportError: cannot import name 'nothing' from"),
    ("application = [\n", r"^SyntaxError: '\[' was never closed$"),
    (UNCALLED, r"^Error: The route 'a/': Chat\.as_asgi is not called: .*\(mysite/pages\.py"),
    ("", "^Error: Cannot find 'application' in ASGI_APPLICATION module mysite.pages$"),
]
RELOADER_SECONDS = 1.5


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(ASGI_APPLICATION="mysite.pages.application")
    project.write("mysite/pages.py", APPLICATION)
    return project


def open_socket(port: int, path: str = "/") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}{path}", open_timeout=PATIENCE_SECONDS)


class TestBanner:
    def test_an_ipv6_address_stands_in_brackets(self, project: Project) -> None:
        with project.serve("[::1]:0", "--noreload") as server:
            port = server.wait_for_port()
            server.wait_for(rf"development server at http://\[::1\]:{port}/$")
            server.wait_for(rf"Configuring endpoint tcp:port={port}:interface=\\:\\:1$")
            socket.create_connection(("::1", port)).close()

    def test_ipv6_flag(self, project: Project) -> None:
        with project.serve("0", "-6", "--noreload") as server:
            server.wait_for(r"development server at http://\[::1\]:\d+/$")

    def test_the_request_lines(self, project: Project) -> None:
        with project.serve() as server:
            port = server.wait_for_port()
            with open_socket(port, "/room"):
                pass
            with pytest.raises(InvalidStatus), open_socket(port, "/refused"):
                pass
            get(port, "/nowhere?a=%0Ab")
            client = r"127\.0\.0\.1:\d+\]$"
            server.wait_for(rf"\] HTTP GET /nowhere\?a=%0Ab 404 \[\d+\.\d\d, {client}")
            server.wait_for(rf"\] WebSocket HANDSHAKING /room \[{client}")
            server.wait_for(rf"\] WebSocket CONNECT /room \[{client}")
            server.wait_for(rf"\] WebSocket DISCONNECT /room \[{client}")
            server.wait_for(rf"\] WebSocket REJECT /refused \[{client}")

    def test_the_lines_come_without_debug_too(self, project: Project) -> None:
        project.set(DEBUG=False, ALLOWED_HOSTS=["127.0.0.1"])
        with project.serve() as server:
            get(server.wait_for_port(), "/nowhere")
            server.wait_for(r"HTTP GET /nowhere 404")

    def test_the_projects_own_logging_is_left_alone(self, project: Project) -> None:
        handler = {"class": "logging.FileHandler", "filename": "requests.log"}
        project.set(
            LOGGING={
                "version": 1,
                "handlers": {"file": handler},
                "loggers": {"django.channels.server": {"handlers": ["file"], "level": "INFO"}},
            }
        )
        with project.serve() as server:
            port = int(server.wait_for(r"server at http://[\d.]+:(\d+)/")[1])
            get(port, "/nowhere")
        assert "HTTP GET /nowhere 404" in (project.folder / "requests.log").read_text()


class TestOptions:
    def test_asgi_application_is_needed(self) -> None:
        with (
            override_settings(DEBUG=True, ASGI_APPLICATION=None),
            pytest.raises(CommandError) as error,
        ):
            call_command("runserver", use_reloader=False)
        assert str(error.value) == (
            "You have not set ASGI_APPLICATION, which is needed to run the server."
        )

    def test_noasgi_is_djangos_own_server(self, project: Project) -> None:
        with project.serve("0", "--noreload", "--noasgi") as server:
            port = int(
                server.wait_for(r"Starting (?:WSGI )?development server at http://[\d.]+:(\d+)/")[1]
            )
            assert get(port, "/")[0] == 200
            assert get(port, "/static/admin/css/base.css")[0] == 200

    @pytest.mark.parametrize(
        ("words", "debug", "status"),
        [
            ([], True, 200),
            (["--nostatic"], True, 404),
            ([], False, 404),
            (["--insecure"], False, 200),
        ],
    )
    def test_static_files(
        self, project: Project, words: list[str], debug: bool, status: int
    ) -> None:
        project.set(DEBUG=debug, ALLOWED_HOSTS=["127.0.0.1"])
        with project.serve("0", "--noreload", *words) as server:
            assert get(server.wait_for_port(), "/static/admin/css/base.css")[0] == status

    def test_script_name(self, project: Project) -> None:
        project.set(FORCE_SCRIPT_NAME="/site/")
        with project.serve() as server:
            assert get(server.wait_for_port(), "/script") == (200, "/site")

    def test_timeouts(self, project: Project) -> None:
        words = ("--http_timeout", "0.2", "--websocket_handshake_timeout", "0.2")
        with project.serve("0", "--noreload", *words) as server:
            port = server.wait_for_port()
            assert get(port, "/sleep")[0] == 503
            with pytest.raises(InvalidStatus) as refused, open_socket(port, "/slow"):
                pass
            assert refused.value.response.status_code == 403

    @pytest.mark.parametrize(
        ("words", "settings"),
        [
            (["--websocket-max-message-size", "200"], {}),
            ([], {"DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE": 200}),
            ([], {"DAPHNE_WEBSOCKET_MAX_FRAME_SIZE": 200}),
        ],
    )
    def test_sizes(self, project: Project, words: list[str], settings: dict[str, Any]) -> None:
        project.set(**settings)
        with project.serve("0", "--noreload", *words) as server:
            with open_socket(server.wait_for_port()) as client:
                client.recv(PATIENCE_SECONDS)
                client.send(os.urandom(300))
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(PATIENCE_SECONDS)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    def test_a_bad_size_is_told_in_one_line(self, project: Project) -> None:
        with project.serve("0", "--noreload", "--websocket-max-frame-size", "3") as server:
            assert server.wait() == 1
        assert "CommandError: max_frame_bytes=3: the least is 125 bytes." in server.output


class TestChecks:
    def test_an_error_is_told_before_it_listens(self, project: Project) -> None:
        project.set(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryLayer"}})
        with project.serve("0", "--noreload") as server:
            assert server.wait() == 1
        assert "(channels.E003)" in server.output
        assert "no attribute" in server.output or "does not define" in server.output
        assert "Listening" not in server.output

    def test_a_warning_is_told_and_it_serves(self, project: Project) -> None:
        memory = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"hosts": []}}
        project.set(CHANNEL_LAYERS={"default": memory})
        with project.serve("0", "--noreload") as server:
            get(server.wait_for_port(), "/")
        assert "(channels.W011)" in server.output
        assert "System check identified 1 issue" in server.output

    def test_they_can_be_left_out(self, project: Project) -> None:
        project.set(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryLayer"}})
        with project.serve("0", "--noreload", "--skip-checks") as server:
            get(server.wait_for_port(), "/")
        assert "channels.E003" not in server.output


class TestOtherRunservers:
    @pytest.mark.parametrize(
        ("apps", "label"),
        [
            (["channels", "whitenoise.runserver_nostatic"], "Channels"),
            (["whitenoise.runserver_nostatic", "channels"], "Channels"),
        ],
    )
    def test_whitenoise_serves_the_static_files(
        self, tmp_path: Path, apps: list[str], label: str
    ) -> None:
        project = self.make(tmp_path, apps)
        project.edit_settings(
            "MIDDLEWARE = [\n",
            "MIDDLEWARE = [\n    'whitenoise.middleware.WhiteNoiseMiddleware',\n",
        )
        with project.serve() as server:
            port = server.wait_for_port()
            server.wait_for(f"Starting ASGI/{label} development server")
            # WhiteNoise tells how long a file may be kept; Django's handler says nothing of it.
            with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
                client.sendall(
                    b"GET /static/admin/css/base.css HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Connection: close\r\n\r\n"
                )
                assert b"cache-control: max-age=0" in client.recv(1000).lower()

    @pytest.mark.parametrize("apps", [["daphne"], ["daphne", "channels"], ["channels", "daphne"]])
    def test_daphne_alone_or_beside_channels(self, tmp_path: Path, apps: list[str]) -> None:
        project = self.make(tmp_path, apps)
        with project.serve() as server:
            port = server.wait_for_port()
            label = {"daphne": f"Daphne version {__version__}", "channels": "Channels"}[apps[0]]
            server.wait_for(f"Starting ASGI/{label} development server at http://127.0.0.1:{port}/")
            with open_socket(port) as client:
                assert client.recv(PATIENCE_SECONDS) == "edition 1"
            assert get(port, "/static/admin/css/base.css")[0] == 200

    @staticmethod
    def make(parent: Path, apps: list[str]) -> Project:
        project = Project.start(parent)
        project.install(*apps)
        project.set(ASGI_APPLICATION="mysite.pages.application")
        project.write("mysite/pages.py", APPLICATION)
        return project


class TestEnd:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("words", [["0", "--noreload"], ["0"]])
    def test_a_signal_ends_it_in_order(
        self, project: Project, words: list[str], how: signal.Signals
    ) -> None:
        with project.serve(*words) as server, open_socket(server.wait_for_port()) as client:
            client.recv(PATIENCE_SECONDS)
            assert server.stop(how) == 0
            # The reloader's parent may kill the child before it has said anything.
            assert close_code(client) == 1012 or len(words) == 1
        assert "Traceback" not in server.output

    @pytest.mark.parametrize("words", [["0", "--noreload"], ["0"]])
    def test_sync_code_that_sleeps_does_not_hold_it(
        self, project: Project, words: list[str]
    ) -> None:
        with (
            project.serve(*words) as server,
            socket.create_connection(("127.0.0.1", server.wait_for_port())) as client,
        ):
            client.sendall(b"GET /sync HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("^sleeping$")
            assert server.stop(signal.SIGINT) == 0
        # The reloader's parent may kill the child before it has said anything.
        assert len(words) == 1 or re.search("still running: thread .*asgiref", server.output)

    def test_a_port_in_use(self, project: Project) -> None:
        with taken_port() as port, project.serve(str(port), "--noreload") as server:
            assert server.wait() == 1
        assert "CommandError: That port is already in use." in server.output
        assert "Starting ASGI" not in server.output

    def test_a_port_in_use_under_the_reloader(self, project: Project) -> None:
        with taken_port() as port, project.serve(str(port)) as server:
            assert server.wait() == 1
        assert "Error: That port is already in use." in server.output

    def test_a_mistake_ends_it_where_nothing_reloads(self, project: Project) -> None:
        project.write("mysite/pages.py", "import os\n\nos.envron\n")
        with project.serve("0", "--noreload") as server:
            assert server.wait() == 1
        assert "CommandError: importing mysite.pages.application failed:" in server.output
        assert "runserver.py" not in server.output

    def test_a_wrong_flag_is_told_without_a_page_of_flags(self, project: Project) -> None:
        with project.serve("--prot") as server:
            assert server.wait() == 2
        assert server.output == (
            "usage: manage.py runserver [options] [addrport]\n"
            "manage.py runserver: error: unrecognized arguments: --prot\n"
        )

    @pytest.mark.django_db(transaction=True)
    def test_it_runs_in_a_thread(self) -> None:
        command = Command()
        settings = override_settings(
            DEBUG=True, ASGI_APPLICATION="tests.management.test_runserver.nothing"
        )

        def run() -> None:
            call_command(command, "0", use_reloader=False)
            for connection in connections.all(initialized_only=True):
                # That of SQLite does not close itself where the database is in memory.
                BaseDatabaseWrapper.close(connection)

        with settings:
            thread = threading.Thread(target=run)
            thread.start()
            assert command.is_listening.wait(PATIENCE_SECONDS)
            assert command.server is not None
            port = int(command.server.addresses[0][1] or 0)
            assert get(port, "/") == (200, "nothing")
            command.server.request_stop()
            thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


class TestReload:
    """A file changes while connections are open that would like to stay."""

    def test_open_connections_do_not_block_it(self, project: Project) -> None:
        port = free_port()
        with project.serve(str(port)) as server, ExitStack() as stack:
            server.wait_for_port()
            sockets = [
                stack.enter_context(open_socket(port, path)) for path in ("/", "/thread", "/deaf")
            ]
            for client in sockets:
                assert client.recv(PATIENCE_SECONDS) == "edition 1"
            requests = []
            for path in (b"/stream", b"/sleep"):
                address = ("127.0.0.1", port)
                request = stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
                request.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                requests.append(request)
            assert requests[0].recv(1000), "the stream has begun"
            self.change(project, server)
            assert [close_code(client) for client in sockets] == [1012] * 3
            for request in requests:
                # What cannot end is cut, and the client may see that as an error.
                with suppress(ConnectionResetError):
                    while request.recv(1000):
                        pass
            self.is_new(server, port)

    @pytest.mark.timeout(180)
    def test_mistakes_are_told_without_our_frames_and_mended(self, project: Project) -> None:
        port = free_port()
        with project.serve(str(port)) as server:
            server.wait_for_port()
            for times, (text, said) in enumerate(MISTAKES, 1):
                self.change(project, server, text, times)
                server.wait_for(said)
            self.change(project, server, times=len(MISTAKES) + 1)
            self.is_new(server, port)
        assert "Exception in thread" not in server.output
        assert "runserver.py" not in server.output

    def test_a_layer_that_cannot_be_made_is_told_without_a_traceback(
        self, project: Project
    ) -> None:
        project.set(CHANNEL_LAYERS={"default": {"BACKEND": "nowhere.Layer"}})
        with project.serve("0") as server:
            server.wait_for(r"\(channels\.E003\) The BACKEND 'nowhere\.Layer'")
            server.wait_for(r"^System check identified 1 issue")
        assert "Traceback" not in server.output

    @staticmethod
    def change(project: Project, server: Child, text: str = SECOND_EDITION, times: int = 1) -> None:
        # A change counts once the reloader has seen the file before; it looks every second.
        project.write("mysite/pages.py", text)
        while not server.has(r"pages\.py changed, reloading\.", times, RELOADER_SECONDS):
            project.write("mysite/pages.py", text)

    @staticmethod
    def is_new(server: Child, port: int) -> None:
        server.wait_for_port(times=2)
        with open_socket(port) as client:
            assert client.recv(PATIENCE_SECONDS) == "edition 2"


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application for the thread."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"nothing"})


def close_code(client: ClientConnection) -> int | None:
    """The code that the server closed with."""
    with pytest.raises(ConnectionClosed):
        client.recv(PATIENCE_SECONDS)
    return client.close_code


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


FAILING = """\
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path


class Failing(AsyncWebsocketConsumer):
    async def connect(self):
        raise ValueError("boom")


application = ProtocolTypeRouter({"websocket": URLRouter([path("", Failing.as_asgi())])})
"""


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("words", [["0", "--noreload"], ["0"]])
def test_a_consumers_error_is_seen_once_whatever_the_settings(
    tmp_path: Path, words: list[str], debug: bool
) -> None:
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(DEBUG=debug, ALLOWED_HOSTS=["*"], ASGI_APPLICATION="mysite.asgi.application")
    project.write("mysite/asgi.py", FAILING)
    with project.serve(*words) as server:
        with pytest.raises(InvalidStatus, match="500"):
            connect(f"ws://127.0.0.1:{server.wait_for_port()}/")
        server.wait_for("^ValueError: boom$")
    assert server.output.count("ValueError: boom\n") == 1, server.output
    assert server.output.count("Exception in Failing while handling 'websocket.connect'") == 1
