"""`--log-format json` of the management commands, with processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.processes import Child
from tests.tutorial.browsing import get
from tests.tutorial.project import Project

APPLICATION = """\
import logging

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

http = get_asgi_application()


class Member(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        logging.getLogger("site").warning("received %s", text_data)
        await self.send("done")
        if text_data == "fail":
            raise ValueError("boom")


application = ProtocolTypeRouter({"http": http, "websocket": Member.as_asgi()})
"""


@pytest.fixture
def project(tmp_path: Path, short_path: Path) -> Project:
    made = Project.start(tmp_path)
    made.install("channels")
    config = {"directory": str(short_path)}
    layer = {"BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": config}
    made.set(ASGI_APPLICATION="mysite.asgi.application", CHANNEL_LAYERS={"default": layer})
    made.write("mysite/asgi.py", APPLICATION)
    return made


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def said(found: list[dict[str, Any]], start: str) -> dict[str, Any]:
    """The one line whose message begins so."""
    (line,) = [each for each in found if each.get("message", "").startswith(start)]
    return line


def talk(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/ws") as client:
        client.send("fail")
        assert client.recv(20) == "done"


@pytest.mark.parametrize("debug", [False, True])
def test_runserver(project: Project, debug: bool) -> None:
    project.set(DEBUG=debug, ALLOWED_HOSTS=["*"])
    with project.serve("0", "--noreload", "--log-format", "json") as server:
        port = int(server.wait_for(r"127\.0\.0\.1:(\d+)")[1])
        assert get(port, "/none")[0] == 404
        talk(port)
        server.wait_for('"kind": "websocket.disconnected"')
        server.stop()
    found = objects(server.output)
    access = {line["path"]: line for line in found if "kind" in line}
    assert access["/none"]["status"] == 404
    identity = access["/ws"]["request_id"]
    assert said(found, "received fail")["request_id"] == identity
    failure = said(found, "Exception in Member")
    assert failure["request_id"] == identity
    assert failure["exception"].endswith("ValueError: boom")
    # Nothing but what the command itself prints is text.
    text = [line for line in server.output.splitlines() if not line.startswith("{")]
    assert not [line for line in text if "Not Found" in line or "ValueError" in line]


def test_runworker_has_the_id_that_the_edge_gave(project: Project) -> None:
    words = ("-m", "channels", "interface", "-p", "0", "--layer", "default")
    env = {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
    with (
        Child(*words, "--log-format", "json", cwd=project.folder, env=env) as edge,
        Child(
            *("manage.py", "runworker"), cwd=project.folder, env={"CHANNELS_LOG_FORMAT": "json"}
        ) as worker,
    ):
        worker.wait_for("Ready: taking connections")
        talk(int(edge.wait_for(r'Listening on TCP address 127\.0\.0\.1:(\d+)"')[1]))
        edge.wait_for('"kind": "websocket.disconnected"')
        worker.wait_for("Exception in Member")
        worker.stop()
    found = objects(worker.output)
    assert len(found) == len(worker.output.splitlines())
    (closed,) = [e for e in objects(edge.output) if e.get("kind") == "websocket.disconnected"]
    assert said(found, "received fail")["request_id"] == closed["request_id"]
    assert said(found, "Exception in Member")["request_id"] == closed["request_id"]


def test_a_format_of_ones_own(project: Project) -> None:
    words = ("manage.py", "runworker", "--log-format", "%(levelname)s|%(message)s")
    with Child(*words, cwd=project.folder) as worker:
        worker.wait_for(r"^INFO\|Ready: taking connections")
