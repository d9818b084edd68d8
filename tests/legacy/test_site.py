"""The programs of `sources`, run as their readers run them: interface server, workers, sockets.

Each is a process of its own; they meet over the hub of this machine, or over Redis.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.cluster.servers import OwnServer, redis_server
from tests.legacy import sources
from tests.processes import Child
from tests.tutorial.browsing import PATIENCE_SECONDS, get
from tests.tutorial.project import Project

#: 24 MB: more than may wait anywhere on the way.
LARGE_URLS = """
from django.http import StreamingHttpResponse
from django.urls import path


def numbers(request):
    return StreamingHttpResponse(
        "".join(f"{number:09}\\n" for number in range(start, start + 10_000))
        for start in range(0, 2_400_000, 10_000)
    )


urlpatterns = [path("", numbers)]
"""
USERS = ("anna", "alex", "bob")
MAKE_USERS = f"""
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
for name in {USERS!r}:
    user = get_user_model().objects.create_user(name)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    print("session", name, session.session_key)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """A project with a database and without consumers; and each user's session key."""
    project = Project.start(tmp_path_factory.mktemp("made"), "myproject")
    for app in ("myapp", "chat"):
        project.start_app(app)
    project.write("myapp/models.py", sources.MODELS)
    project.write("chat/models.py", sources.ROOM_MODELS)
    project.write("myproject/asgi.py", sources.ASGI)
    project.install("channels", "myapp", "chat")
    project.manage("makemigrations", "myapp", "chat")
    project.manage("migrate")
    said = project.manage("shell", "-c", MAKE_USERS)
    sessions = dict(re.findall(r"^session (\w+) (\w+)$", said, re.MULTILINE))
    assert set(sessions) == set(USERS)
    return project, sessions


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


#: For what depends on what the layer keeps, and in which order; the others run over "local".
over_both_layers = pytest.mark.parametrize("layer", ["local", "redis"], indirect=True)


@pytest.fixture
def layer(request: pytest.FixtureRequest, short_path: Path) -> dict[str, Any]:
    """BACKEND and CONFIG of a layer that spans processes."""
    if getattr(request, "param", "local") == "local":
        config: dict[str, Any] = {"directory": str(short_path)}
        return {"BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": config}
    port = request.getfixturevalue("redis").port
    config = {"hosts": [("127.0.0.1", port)], "prefix": uuid.uuid4().hex}
    return {"BACKEND": "asgi_redis.RedisChannelLayer", "CONFIG": config}


class Site:
    """A project, and the processes that serve it."""

    def __init__(self, project: Project, sessions: dict[str, str]) -> None:
        self.project = project
        self.sessions = sessions
        self.port = 0
        self.server: Child
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        words = ("-m", "daphne", "-p", "0", "myproject.asgi:channel_layer")
        self.server = self._stack.enter_context(Child(*words, cwd=self.project.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def work(self, *words: str) -> Child:
        """Another worker."""
        worker = Child("manage.py", "runworker", *words, cwd=self.project.folder)
        return self._stack.enter_context(worker)

    def open(self, path: str = "/", **more: Any) -> ClientConnection:
        """A socket of a client's."""
        self.port = self.port or self.server.wait_for_port()
        url = f"ws://127.0.0.1:{self.port}{path}"
        client: ClientConnection = connect(url, open_timeout=PATIENCE_SECONDS, **more)
        return self._stack.enter_context(client)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        self.port = self.port or self.server.wait_for_port()
        return get(self.port, path)


@pytest.fixture
def start(
    made: tuple[Project, dict[str, str]], layer: dict[str, Any], tmp_path: Path
) -> Iterator[Any]:
    """Make a site of consumers and routing, and start its interface server."""
    with ExitStack() as stack:

        def begin(app: str, consumers: str, routing: str) -> Site:
            project = made[0].copy(tmp_path)
            project.write(f"{app}/consumers.py", consumers)
            project.write(f"{app}/routing.py", routing)
            routed = {**layer, "ROUTING": f"{app}.routing.channel_routing"}
            project.set(CHANNEL_LAYERS={"default": routed})
            return stack.enter_context(Site(project, made[1]))

        yield begin


def say(client: ClientConnection, text: str) -> None:
    client.send(text)


def hear(client: ClientConnection) -> Any:
    return client.recv(PATIENCE_SECONDS)


@contextmanager
def refused(status: int) -> Iterator[None]:
    with pytest.raises(InvalidStatus) as error:
        yield
    assert error.value.response.status_code == status


@over_both_layers
def test_http_consumer(start: Any) -> None:
    site = start("myapp", sources.HTTP_CONSUMERS, sources.HTTP_ROUTING)
    site.work()
    assert site.get("/some/page") == (200, "Hello world! You asked for /some/page")


def test_echo(start: Any) -> None:
    site = start("myapp", sources.ECHO_CONSUMERS, sources.ECHO_ROUTING)
    site.work()
    client = site.open()
    for text in ("hello", "é"):
        say(client, text)
        assert hear(client) == text
    # What the routing does not name is served by Django.
    assert site.get("/admin/login/")[0] == 200


def test_liveblog(start: Any) -> None:
    site = start("myapp", sources.LIVEBLOG_CONSUMERS, sources.LIVEBLOG_ROUTING)
    site.project.write("myapp/apps.py", sources.APPS)
    site.work()
    readers = [site.open(), site.open()]
    # In a process that neither serves nor works, as an editor's script is one.
    write = 'from myapp.models import BlogUpdate; BlogUpdate.objects.create(content="News")'
    site.project.manage("shell", "-c", write)
    assert [json.loads(hear(each)) for each in readers] == [{"id": 1, "content": "News"}] * 2


@over_both_layers
def test_chat_goes_on_over_new_workers_with_new_code(start: Any) -> None:
    site = start("myapp", sources.CHAT_CONSUMERS, sources.CHAT_ROUTING)
    worker = site.work()
    anna, bob = site.open(), site.open()
    say(anna, "hi")
    assert [hear(anna), hear(bob)] == ["[user] hi"] * 2
    assert worker.stop(signal.SIGTERM) == 0
    # Nobody works; the sockets do not notice.
    say(bob, "anyone?")
    bob.ping().wait(PATIENCE_SECONDS)
    changed = sources.CHAT_CONSUMERS.replace("[user]", "[new]")
    site.project.write("myapp/consumers.py", changed)
    site.work()
    assert [hear(anna), hear(bob)] == ["[new] anyone?"] * 2
    say(anna, "yes")
    assert [hear(anna), hear(bob)] == ["[new] yes"] * 2


@over_both_layers
def test_workers_restarted_one_after_another_lose_and_close_nothing(start: Any) -> None:
    site = start("myapp", sources.ECHO_CONSUMERS, sources.ECHO_ROUTING)
    workers = [site.work(), site.work()]
    clients = [site.open() for _ in range(4)]
    is_over = threading.Event()

    def talk(client: ClientConnection) -> int:
        """Send and hear in turn until all is over: what is lost would end it."""
        for number in itertools.count():
            say(client, str(number))
            assert hear(client) == str(number)
            if is_over.is_set():
                return number
        raise AssertionError("it counts for ever")

    with ThreadPoolExecutor(len(clients)) as pool:
        talks = [pool.submit(talk, client) for client in clients]
        try:
            for worker in workers:
                successor = site.work()
                successor.wait_for("Started worker")
                assert worker.stop(signal.SIGTERM) == 0
        finally:
            is_over.set()
        assert all(each.result() > 0 for each in talks)


def test_rooms_and_usernames_from_the_query_string(start: Any) -> None:
    site = start("myapp", sources.ROOMS_CONSUMERS, sources.ROOMS_ROUTING)
    site.work()
    anna, bob = site.open("/kitchen/?username=anna"), site.open("/kitchen/?username=bob")
    other = site.open("/garden/?username=carl")
    say(anna, "soup")
    assert [hear(anna), hear(bob)] == ["soup"] * 2
    say(other, "roses")
    assert hear(other) == "roses"
    with pytest.raises(ConnectionClosedOK):
        hear(site.open("/kitchen/"))


def test_users_whose_names_begin_with_the_same_letter(start: Any) -> None:
    site = start("myapp", sources.USERS_CONSUMERS, sources.CHAT_ROUTING)
    site.work()

    def enter(name: str, **more: Any) -> ClientConnection:
        cookie = {"Cookie": f"sessionid={site.sessions[name]}"}
        found: ClientConnection = site.open(additional_headers=cookie, **more)
        return found

    site.port = site.server.wait_for_port()
    ours = f"http://127.0.0.1:{site.port}"
    anna, alex, bob = (enter(name, origin=ours) for name in USERS)
    say(anna, "from a")
    assert [hear(anna), hear(alex)] == ["from a"] * 2
    # The session's key may come in the URL as well.
    other = site.open(f"/?session_key={site.sessions['bob']}", origin=ours)
    say(bob, "from b")
    assert [hear(bob), hear(other)] == ["from b"] * 2
    for origin in ("http://elsewhere.example", None):
        with refused(403):
            enter("anna", origin=origin)


@over_both_layers
def test_models_and_a_channel_of_ones_own_with_workers_for_some_channels(start: Any) -> None:
    site = start("myapp", sources.MODELS_CONSUMERS, sources.MODELS_ROUTING)
    site.work("--only-channels=http.*", "--only-channels=websocket.*")
    anna, bob = site.open("/kitchen/"), site.open("/kitchen/")
    say(anna, "soup")
    bob.ping().wait(PATIENCE_SECONDS)
    sender = site.work("--exclude-channels=http.*", "--exclude-channels=websocket.*", "-v", "2")
    assert [hear(anna), hear(bob)] == ["soup"] * 2
    sender.wait_for("Started worker.*: chat-messages of layer 'default'")
    sender.wait_for("chat-messages$")
    count = "from myapp.models import *; print('kept', ChatMessage.objects.count())"
    assert "kept 1" in site.project.manage("shell", "-c", count)


def test_rooms_with_the_last_50_messages(start: Any) -> None:
    site = start("chat", sources.ROOM_CONSUMERS, sources.ROOM_ROUTING)
    site.project.set(CHANNELS_ACCEPT_UNANSWERED=True)
    site.project.write("chat/views.py", sources.ROOM_VIEWS)
    site.project.write("chat/templates/chat/room.html", sources.ROOM_PAGE)
    site.project.write("myproject/urls.py", sources.ROOM_URLS)
    site.work("--threads", "2")
    assert site.get("/lobby/") == (200, "lobby:\n\n")
    anna, bob = site.open("/chat/lobby/"), site.open("/chat/lobby/")
    texts = [f"m{number}" for number in range(52)]
    for text in texts:
        say(anna, json.dumps({"handle": "anna", "message": text}))
        assert hear(anna) == hear(bob) == json.dumps({"handle": "anna", "message": text})
    status, page = site.get("/lobby/")
    assert (status, page.split()) == (200, ["lobby:", *(f"anna={text}" for text in texts[-50:])])


@over_both_layers
def test_a_large_response_of_a_view(start: Any) -> None:
    site = start("myapp", sources.ECHO_CONSUMERS, sources.ECHO_ROUTING)
    site.project.write("myproject/urls.py", LARGE_URLS)
    site.work()
    status, text = site.get("/")
    assert status == 200
    assert text == "".join(f"{number:09}\n" for number in range(2_400_000))


def test_a_request_waits_for_a_worker_to_come(start: Any) -> None:
    site = start("myapp", sources.HTTP_CONSUMERS, sources.HTTP_ROUTING)
    site.port = site.server.wait_for_port()
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(site.get, "/late")
        site.work()
        assert page.result() == (200, "Hello world! You asked for /late")
