"""Two readers' notes on Channels 2: the tutorial once more, and a consumer for each user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.processes import Child
from tests.tutorial import sources
from tests.tutorial.browsing import PATIENCE_SECONDS, enter_room, get, post, read, reads_nothing
from tests.tutorial.project import LAYER, Project

#: Makes two users and prints the session key of each, as their browsers' cookies have it.
LOG_IN = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User

keys = {}
for name in ("anna", "bert"):
    user = User.objects.create_user(name)
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    keys[name] = session.session_key

print("keys:", json.dumps(keys))
"""


def test_the_first_notes(tmp_path: Path) -> None:
    project = Project.start(tmp_path)
    project.start_app("chat")
    project.install("chat", "channels")
    project.set(ASGI_APPLICATION="mysite.routing.application", CHANNEL_LAYERS={"default": LAYER})
    project.write("chat/templates/chat/index.html", sources.INDEX_HTML_2)
    project.write("chat/templates/chat/room.html", sources.ROOM_HTML)
    project.write("chat/views.py", sources.VIEWS_ROOM)
    project.write("chat/urls.py", sources.URLS_ROOM)
    project.write("chat/routing.py", sources.CHAT_ROUTING)
    project.write("chat/consumers.py", sources.ASYNC_CONSUMERS)
    project.write("mysite/urls.py", sources.ROOT_URLS)
    project.write("mysite/routing.py", sources.ROOT_ROUTING)
    with project.serve() as server:
        port = server.wait_for_port()
        assert "What chat room" in get(port, "/chat/")[1]
        with enter_room(port, "lobby") as first, enter_room(port, "lobby") as second:
            post(first, "hello")
            assert [read(first), read(second)] == ["hello", "hello"]


@pytest.fixture(scope="module")
def typed_monitor(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project of the second notes, not to be changed."""
    project = Project.start(tmp_path_factory.mktemp("typed"), "NetWorkMonitor")
    # `startapp websocket`, which refuses the name where Selenium has installed a module of it.
    project.write("websocket/__init__.py", "")
    project.install("channels", "websocket")
    settings = project.folder / "NetWorkMonitor" / "settings.py"
    settings.write_text(settings.read_text() + sources.NOTES_SETTINGS)
    project.set(CHANNEL_LAYERS={"default": LAYER})
    project.write("NetWorkMonitor/asgi.py", sources.NOTES_ASGI)
    project.write("websocket/routing.py", sources.NOTES_ROUTING)
    project.write("websocket/consumers.py", sources.NOTES_CONSUMERS)
    project.manage("migrate")
    return project


@pytest.fixture
def monitor(typed_monitor: Project, tmp_path: Path) -> Project:
    return typed_monitor.copy(tmp_path)


def log_in(project: Project) -> dict[str, str]:
    """The session keys of two users."""
    output = project.manage("shell", stdin=LOG_IN)
    keys: dict[str, str] = json.loads(output.partition("keys: ")[2].splitlines()[0])
    return keys


def join(port: int, key: str) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{port}/ws/",
        additional_headers={"Cookie": f"sessionid={key}"},
        open_timeout=PATIENCE_SECONDS,
    )


def serve(project: Project, how: str) -> Child:
    application = "NetWorkMonitor.asgi:application"
    if how == "runserver":
        return project.serve()
    if how == "channels":
        return Child("-m", "channels", "serve", "--port", "0", application, cwd=project.folder)
    return Child("-m", "daphne", "-p", "0", application, cwd=project.folder)


@pytest.mark.parametrize("how", ["runserver", "channels", "daphne"])
def test_each_user_has_a_group(monitor: Project, how: str) -> None:
    keys = log_in(monitor)
    with serve(monitor, how) as server:
        port = server.wait_for_port()
        with (
            join(port, keys["anna"]) as desk,
            join(port, keys["anna"]) as phone,
            join(port, keys["bert"]) as other,
        ):
            desk.send("hello")
            assert desk.recv(PATIENCE_SECONDS) == "hello"
            assert phone.recv(PATIENCE_SECONDS) == "hello"
            assert reads_nothing(other)


def test_nobody_has_no_name_for_a_group(monitor: Project) -> None:
    with monitor.serve() as server:
        port = server.wait_for_port()
        with pytest.raises(InvalidStatus) as refused, join(port, "none"):
            pass
        assert refused.value.response.status_code == 500
        server.wait_for("TypeError: Group name must be a valid")


def test_two_ways_to_the_database(monitor: Project) -> None:
    keys = log_in(monitor)
    monitor.write("websocket/consumers.py", sources.NOTES_DATABASE_CONSUMERS)
    monitor.write(
        "websocket/routing.py", sources.NOTES_ROUTING.replace("EchoConsumer", "NameConsumer")
    )
    with monitor.serve() as server, join(server.wait_for_port(), keys["anna"]) as client:
        assert [client.recv(PATIENCE_SECONDS), client.recv(PATIENCE_SECONDS)] == ["anna", "anna"]
