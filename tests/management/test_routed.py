"""`runserver` where the default layer has ROUTING: interface server and workers in one process."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.legacy import sources
from tests.processes import Child
from tests.tutorial.browsing import PATIENCE_SECONDS, get
from tests.tutorial.project import Project

RELOADER_SECONDS = 1.5


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An echo."""
    project = Project.start(tmp_path, "myproject")
    project.install("channels")
    project.write("myapp/__init__.py", "")
    project.write("myapp/consumers.py", sources.ECHO_CONSUMERS)
    project.write("myapp/routing.py", sources.ECHO_ROUTING)
    project.write("myapp/static/note.txt", "a static file")
    project.install("myapp")
    route(project, BACKEND="asgiref.inmemory.ChannelLayer")
    return project


def route(project: Project, **layer: Any) -> None:
    routed = {**layer, "ROUTING": "myapp.routing.channel_routing"}
    project.set(CHANNEL_LAYERS={"default": routed})


def open_socket(port: int, **more: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{port}/room/"
    client: ClientConnection = connect(url, open_timeout=PATIENCE_SECONDS, **more)
    return client


def test_one_process_serves_and_works(project: Project) -> None:
    """Without ASGI_APPLICATION, over the layer of the process."""
    project.set(CHANNELS_WS_PROTOCOLS=["chat"])
    with project.serve() as server:
        port = server.wait_for_port()
        with open_socket(port, subprotocols=["other", "chat"]) as client:
            assert client.subprotocol == "chat"
            client.send("hello")
            assert client.recv(PATIENCE_SECONDS) == "hello"
        # By Django's views, in a worker.
        assert get(port, "/admin/login/")[0] == 200
        assert get(port, "/static/note.txt") == (200, "a static file")
        for line in (
            r"\] HTTP GET /admin/login/ 200 \[\d+\.\d\d, 127\.0\.0\.1:\d+\]$",
            r"\] WebSocket HANDSHAKING /room/ \[127\.0\.0\.1:\d+\]$",
            r"\] WebSocket CONNECT /room/ \[",
            r"\] WebSocket DISCONNECT /room/ \[",
        ):
            server.wait_for(line)
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
    assert "ASGI_APPLICATION" not in server.output


def test_new_code_is_taken_up(project: Project) -> None:
    with project.serve("0") as server:
        with open_socket(server.wait_for_port()) as client:
            client.send("hello")
            assert client.recv(PATIENCE_SECONDS) == "hello"
            changed = sources.ECHO_CONSUMERS.replace("['text'],", "['text'].upper(),")
            project.write("myapp/consumers.py", changed)
            # A change counts once the reloader has seen the file before; it looks every second.
            while not server.has(r"consumers\.py changed, reloading\.", 1, RELOADER_SECONDS):
                project.write("myapp/consumers.py", changed)
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE_SECONDS)
        with open_socket(server.wait_for_port(2)) as client:
            client.send("hello")
            assert client.recv(PATIENCE_SECONDS) == "HELLO"


def test_without_workers(project: Project, short_path: Path) -> None:
    with project.serve("0", "--noreload", "--noworker") as server:
        assert server.wait() == 1
        server.wait_for("^CommandError: You cannot span multiple processes with the in-memory")
    config = {"directory": str(short_path)}
    route(project, BACKEND="channels.layers.LocalChannelLayer", CONFIG=config)
    with (
        project.serve("0", "--noreload", "--noworker") as server,
        Child("manage.py", "runworker", cwd=project.folder) as worker,
        open_socket(server.wait_for_port()) as client,
    ):
        client.send("hello")
        assert client.recv(PATIENCE_SECONDS) == "hello"
        worker.wait_for(r"Started worker.*: .*websocket\.receive.* of layer 'default'$")
        assert worker.stop() == 0
        assert "Stopped." in worker.output


def test_a_worker_serves_static_files_for_developers(project: Project, short_path: Path) -> None:
    config = {"directory": str(short_path)}
    route(project, BACKEND="channels.layers.LocalChannelLayer", CONFIG=config)
    words = ("-m", "channels", "interface", "-p", "0", "--layer", "default")
    env = {"DJANGO_SETTINGS_MODULE": "myproject.settings"}
    with (
        Child(*words, cwd=project.folder, env=env) as server,
        Child("manage.py", "runworker", "-v", "2", cwd=project.folder) as worker,
    ):
        assert get(server.wait_for_port(), "/static/note.txt") == (200, "a static file")
        worker.wait_for(r"http\.request$")
        server.wait_for(r"Started channels \S+, process \d+: layer 'default' at ")


def test_a_supervisor_is_told_when_workers_begin(project: Project, short_path: Path) -> None:
    config = {"directory": str(short_path)}
    route(project, BACKEND="channels.layers.LocalChannelLayer", CONFIG=config)
    address = str(short_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        supervisor.settimeout(PATIENCE_SECONDS)
        env = {"NOTIFY_SOCKET": address}
        with Child("manage.py", "runworker", cwd=project.folder, env=env) as worker:
            assert supervisor.recv(100) == b"READY=1"
            worker.wait_for("Started worker")
            assert worker.stop() == 0
            assert supervisor.recv(100) == b"STOPPING=1"


def test_a_worker_takes_up_new_code_while_sockets_stay(project: Project, short_path: Path) -> None:
    config = {"directory": str(short_path)}
    route(project, BACKEND="channels.layers.LocalChannelLayer", CONFIG=config)
    with (
        project.serve("0", "--noreload", "--noworker") as server,
        Child("manage.py", "runworker", "--reload", cwd=project.folder) as worker,
        ExitStack() as stack,
    ):
        # A handshake waits five seconds for a worker, which may need longer to start.
        worker.wait_for("Started worker")
        client = stack.enter_context(open_socket(server.wait_for_port()))
        client.send("hello")
        assert client.recv(PATIENCE_SECONDS) == "hello"
        project.write("myapp/consumers.py", "broken(")
        worker.wait_for("It ended with status 1")
        client.send("again")
        changed = sources.ECHO_CONSUMERS.replace("['text'],", "['text'].upper(),")
        project.write("myapp/consumers.py", changed)
        assert client.recv(PATIENCE_SECONDS) == "AGAIN"
        assert worker.stop() == 0


def test_wrong_routing_is_told(project: Project) -> None:
    project.write("myapp/routing.py", "channel_routing = 5\n")
    with project.serve() as server:
        assert server.wait() == 1
        server.wait_for("Channel routing must be a list of route")
