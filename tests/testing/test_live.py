"""The live server test case, run by `manage.py test` in a project of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import override_settings

from channels.kit.types import Receive, Scope, Send
from channels.testing import ChannelsLiveServerTestCase
from channels.testing.live import make_application
from tests.tutorial.project import Project
from tests.tutorial.test_part_4 import processes_in

PAGES = """\
import os

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        async for group in Group.objects.order_by("name"):
            await send({"type": "websocket.send", "text": group.name})
        await send({"type": "websocket.close"})
    elif scope["type"] == "http" and scope["path"] == "/setting":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": settings.COLOUR.encode()})
    elif scope["type"] == "http" and scope["path"] == "/add":
        # On the thread of all sync code, which a forked child does not have.
        await sync_to_async(Group.objects.create)(name="added")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "http" and scope["path"] == "/type":
        found = await sync_to_async(ContentType.objects.get_for_model)(Group)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(found.pk).encode()})
    elif scope["type"] == "http" and scope["path"] == "/die":
        os._exit(9)
    else:
        await django_application(scope, receive, send)
"""

TESTS = """\
import asyncio
import multiprocessing
import os
from http.client import HTTPConnection
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from channels.testing import ChannelsLiveServerTestCase
from daphne.testing import DaphneProcess
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.test import override_settings
from websockets.sync.client import connect

multiprocessing.set_start_method(os.environ["START_METHOD"], force=True)


def get(url):
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def read(url):
    with connect(url + "/") as socket:
        return list(socket)


@override_settings(COLOUR="red")
class Works(ChannelsLiveServerTestCase):
    @classmethod
    def setUpClass(cls):
        # Leaves this process with a thread for sync code.
        asyncio.run(sync_to_async(int)())
        super().setUpClass()

    def test_database_and_websocket(self):
        Group.objects.create(name="one")
        Group.objects.create(name="two")
        self.assertEqual(read(self.live_server_ws_url), ["one", "two"])

    def test_written_by_the_server(self):
        self.assertEqual(read(self.live_server_ws_url), [])
        self.assertEqual(get(self.live_server_url + "/add")[0], 200)
        self.assertEqual([group.name for group in Group.objects.all()], ["added"])

    def same_content_type(self):
        # The flush between two tests gives the rows of content types new keys.
        expected = str(ContentType.objects.get_for_model(Group).pk)
        self.assertEqual(get(self.live_server_url + "/type"), (200, expected))

    test_remembered_rows_1 = test_remembered_rows_2 = same_content_type

    def test_settings(self):
        self.assertEqual(get(self.live_server_url + "/setting"), (200, "red"))

    def test_static_files_and_host(self):
        self.assertEqual(get(self.live_server_url + "/static/admin/css/base.css")[0], 200)
        self.assertEqual(get(self.live_server_url + "/admin/")[0], 302)
        self.assertTrue(self.live_server_url.startswith("http://localhost:"))


class OwnProcess(DaphneProcess):
    pass


class NoStatic(ChannelsLiveServerTestCase):
    host = "127.0.0.1"
    serve_static = False
    # A class of this module, which a spawned child can import only after django.setup().
    ProtocolServerProcess = OwnProcess

    def test_static_files(self):
        self.assertEqual(get(self.live_server_url + "/static/admin/css/base.css")[0], 404)


class Static:
    # A static wrapper of the project.

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        if scope["path"] != "/static/mine":
            return await self.application(scope, receive, send)
        await send({"type": "http.response.start", "status": 203, "headers": []})
        await send({"type": "http.response.body", "body": b"mine"})


class OwnStatic(ChannelsLiveServerTestCase):
    static_wrapper = Static

    def test_static_files(self):
        self.assertEqual(get(self.live_server_url + "/static/mine"), (203, "mine"))
        self.assertEqual(get(self.live_server_url + "/setting"), (200, "blue"))


@override_settings(ASGI_APPLICATION="mysite.broken.application")
class Broken(ChannelsLiveServerTestCase):
    def test_never_runs(self):
        raise AssertionError("it ran")


class Dies(ChannelsLiveServerTestCase):
    def test_1(self):
        try:
            get(self.live_server_url + "/die")
        except OSError:
            pass
        self._server_process.join(20)

    def test_2(self):
        raise AssertionError("it ran")
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(ASGI_APPLICATION="mysite.pages.application", COLOUR="blue")
    project.edit_settings(
        "'NAME': BASE_DIR / 'db.sqlite3',\n",
        "'NAME': BASE_DIR / 'db.sqlite3',\n        'TEST': {'NAME': BASE_DIR / 'test.sqlite3'},\n",
    )
    project.write("mysite/pages.py", PAGES)
    project.write("mysite/broken.py", "1 / 0\n")
    project.write("mysite/tests.py", TESTS)
    return project


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"START_METHOD": request.param}


def test_the_server_sees_what_the_test_sees(project: Project, start_method: dict[str, str]) -> None:
    cases = [f"mysite.tests.{name}" for name in ("Works", "NoStatic", "OwnStatic")]
    output = project.manage("test", *cases, env=start_method)
    assert "Ran 8 tests" in output
    assert re.search(r"^OK$", output, re.MULTILINE), output
    assert processes_in(project.folder) == []


def test_an_error_at_the_start_is_the_tests_error(
    project: Project, start_method: dict[str, str]
) -> None:
    with pytest.raises(AssertionError) as failed:
        project.manage("test", "mysite.tests.Broken", env=start_method)
    output = str(failed.value.args[0])
    assert "RuntimeError: The server failed:" in output
    assert 'mysite/broken.py", line 1' in output
    assert "ZeroDivisionError: division by zero" in output
    assert "it ran" not in output
    assert processes_in(project.folder) == []


def test_a_server_that_dies_fails_the_tests_after_it(project: Project) -> None:
    with pytest.raises(AssertionError) as failed:
        project.manage("test", "mysite.tests.Dies", env={"START_METHOD": "fork"})
    output = str(failed.value.args[0])
    assert "RuntimeError: The server ended with status 9." in output
    assert "it ran" not in output


def test_a_parallel_run_is_refused_with_what_to_do(project: Project) -> None:
    words = ("test", "mysite.tests.Works", "mysite.tests.NoStatic", "--parallel", "2")
    with pytest.raises(AssertionError) as failed:
        project.manage(*words, env={"START_METHOD": "fork"})
    assert "run these tests with --parallel 1" in str(failed.value.args[0])


@pytest.mark.django_db
def test_a_database_in_memory_cannot_be_shared() -> None:
    assert ChannelsLiveServerTestCase._is_in_memory_db(connection)
    with pytest.raises(ImproperlyConfigured) as error:
        ChannelsLiveServerTestCase.setUpClass()
    assert 'DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}' in str(error.value)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Named by the tests below."""


def test_make_application() -> None:
    with override_settings(ASGI_APPLICATION="tests.testing.test_live.application"):
        assert make_application(static_wrapper=None) is application
        wrapped = make_application(static_wrapper=ASGIStaticFilesHandler)
    assert isinstance(wrapped, ASGIStaticFilesHandler)
    assert wrapped.application is application
