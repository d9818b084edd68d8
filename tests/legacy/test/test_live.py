"""The live server test case, run by `manage.py test` in a project of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from channels.test import ChannelLiveServerTestCase
from tests.legacy.conftest import MakeSite
from tests.tutorial.project import Project
from tests.tutorial.test_part_4 import processes_in

ROUTING = """\
import os

from channels import Group, route
from django.contrib.auth.models import Group as Rows
from django.contrib.contenttypes.models import ContentType


def connect(message):
    message.reply_channel.send({"accept": True})
    Group("live").add(message.reply_channel)


def receive(message):
    if message["text"] == "rows":
        names = Rows.objects.order_by("name").values_list("name", flat=True)
        message.reply_channel.send({"text": ",".join(names)})
    elif message["text"] == "type":
        found = ContentType.objects.get_for_model(Rows)
        message.reply_channel.send({"text": str(found.pk)})
    elif message["text"] == "die":
        os._exit(9)
    else:
        Group("live").send({"text": message["text"]})


channel_routing = [route("websocket.connect", connect), route("websocket.receive", receive)]
"""
TESTS = """\
import multiprocessing
import os
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from channels import Group
from channels.test import ChannelLiveServerTestCase
from django.contrib.auth.models import Group as Rows
from django.contrib.contenttypes.models import ContentType
from websockets.sync.client import connect

multiprocessing.set_start_method(os.environ["START_METHOD"], force=True)


def get(url):
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


class Case(ChannelLiveServerTestCase):
    def ask(self, text):
        with connect(self.live_server_ws_url + "/") as socket:
            socket.send(text)
            return socket.recv(20)


class Works(Case):
    worker_threads = 2

    def test_the_workers_see_the_tests_rows(self):
        Rows.objects.create(name="one")
        Rows.objects.create(name="two")
        self.assertEqual(self.ask("rows"), "one,two")

    def test_each_test_has_its_own_rows(self):
        self.assertEqual(self.ask("rows"), "")

    def test_groups(self):
        url = self.live_server_ws_url + "/"
        with connect(url) as one, connect(url) as two:
            one.send("to all")
            self.assertEqual([one.recv(20), two.recv(20)], ["to all"] * 2)
            Group("live").send({"text": "from the test"})
            self.assertEqual([one.recv(20), two.recv(20)], ["from the test"] * 2)

    def same_content_type(self):
        # The flush between two tests gives the rows of content types new keys.
        self.assertEqual(self.ask("type"), str(ContentType.objects.get_for_model(Rows).pk))

    test_remembered_rows_1 = test_remembered_rows_2 = same_content_type

    def test_views_and_static_files(self):
        self.assertEqual(get(self.live_server_url + "/admin/"), 302)
        self.assertEqual(get(self.live_server_url + "/static/channels/js/websocketbridge.js"), 200)


class Dies(Case):
    def test_1(self):
        with connect(self.live_server_ws_url + "/") as socket:
            socket.send("die")
            self._workers.join(20)

    def test_2(self):
        raise AssertionError("it ran")
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.start(tmp_path)
    project.install("channels")
    layer = {
        "BACKEND": "channels.layers.LocalChannelLayer",
        "ROUTING": "mysite.routing.channel_routing",
    }
    project.set(CHANNEL_LAYERS={"default": layer})
    project.edit_settings(
        "'NAME': BASE_DIR / 'db.sqlite3',\n",
        "'NAME': BASE_DIR / 'db.sqlite3',\n        'TEST': {'NAME': BASE_DIR / 'test.sqlite3'},\n",
    )
    project.write("mysite/routing.py", ROUTING)
    project.write("mysite/tests.py", TESTS)
    return project


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_server_and_workers_see_what_the_test_sees(project: Project, start_method: str) -> None:
    output = project.manage("test", "mysite.tests.Works", env={"START_METHOD": start_method})
    assert "Ran 6 tests" in output
    assert re.search(r"^OK$", output, re.MULTILINE), output
    assert processes_in(project.folder) == []


def test_workers_that_die_fail_the_tests_after_it(project: Project) -> None:
    with pytest.raises(AssertionError) as failed:
        project.manage("test", "mysite.tests.Dies", env={"START_METHOD": "fork"})
    output = str(failed.value.args[0])
    assert "RuntimeError: The server ended with status 9." in output
    assert "it ran" not in output


def test_a_layer_in_memory_cannot_be_shared(site: MakeSite) -> None:
    site()
    with pytest.raises(ImproperlyConfigured, match=r'example "channels\.layers\.LocalChannelLayer'):
        ChannelLiveServerTestCase.setUpClass()
