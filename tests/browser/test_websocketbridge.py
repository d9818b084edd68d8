"""`channels.WebSocketBridge` in a browser: streams, and a server that goes and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.test_channels1 import window
from tests.browser.test_examples import browser
from tests.processes import PATIENCE_SECONDS, Child, free_port
from tests.tutorial.project import LAYER, Project

__all__ = ["browser", "window"]

pytestmark = pytest.mark.xdist_group("browser")

PAGE = """\
{% load static %}<!DOCTYPE html>
<title>Bridge</title>
<script>var channels = {other: "kept"};</script>
<script src="{% static 'channels/js/websocketbridge.js' %}"></script>
<script>
    var heard = [], opened = 0, lost = 0;
    var bridge = new channels.WebSocketBridge(
        {minReconnectionDelay: 20, maxReconnectionDelay: 40, maxQueuedMessages: 2}
    );
    bridge.listen(function (message, stream) { heard.push(["listen", message, stream]); });
    bridge.demultiplex("echo", function (payload, stream) {
        heard.push(["echo", payload, stream]);
    });
    bridge.connect("/stream/");
    bridge.stream("echo").send({number: 1});
    bridge.socket.addEventListener("open", function () { opened += 1; });
    bridge.socket.onclose = function (event) { lost += 1; };
</script>
"""
ROUTING = """\
import json

from channels.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer
from channels.routing import route_class


class Echo(JsonWebsocketConsumer):
    def connect(self, message, multiplexer, **kwargs):
        multiplexer.send("hello")

    def receive(self, content, multiplexer, **kwargs):
        multiplexer.send(content)


class News(JsonWebsocketConsumer):
    def connect(self, message, multiplexer, **kwargs):
        multiplexer.send(["news"])


class Streams(WebsocketDemultiplexer):
    consumers = {"echo": Echo, "news": News}
    strict_ordering = True

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        message.reply_channel.send({"text": "no JSON"})
        message.reply_channel.send({"text": json.dumps({"whole": True})})


channel_routing = [route_class(Streams, path="^/stream/$")]
"""
URLS = """\
from django.urls import path
from django.views.generic import TemplateView

urlpatterns = [path("", TemplateView.as_view(template_name="page.html"))]
"""
#: What the page hears of a socket that has opened.
GREETING: list[Any] = [
    ["echo", "hello", "echo"],
    ["listen", ["news"], "news"],
    ["listen", {"whole": True}, None],
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.start(tmp_path)
    project.install("channels")
    routing = "mysite.routing.channel_routing"
    project.set(CHANNEL_LAYERS={"default": {**LAYER, "ROUTING": routing}})
    project.edit_settings("'DIRS': []", "'DIRS': [BASE_DIR]")
    project.write("page.html", PAGE)
    project.write("mysite/routing.py", ROUTING)
    project.write("mysite/urls.py", URLS)
    project.manage("migrate")
    return project


@pytest.mark.timeout(180)
def test_streams_and_a_server_that_comes_back(window: webdriver.Chrome, project: Project) -> None:
    port = free_port()
    words = (str(port), "--noreload")
    with project.serve(*words) as server:
        server.wait_for_port()
        window.get(f"http://127.0.0.1:{port}/")
        hears(window, [*GREETING, ["echo", {"number": 1}, "echo"]])
        assert window.execute_script("return [opened, lost, channels.other]") == [1, 0, "kept"]
        window.execute_script("bridge.send({stream: 'echo', payload: {number: 2}})")
        hears(window, [["echo", {"number": 2}, "echo"]])
    waits(window, "lost > 0 && bridge.socket.readyState !== 1")
    said = window.execute_script(
        "try { for (var n = 3; ; n++) bridge.stream('echo').send({number: n}); }"
        "catch (error) { return [n, bridge.socket.dropped, error.message]; }"
    )
    assert said[:2] == [5, 1]
    assert "2 messages wait already (maxQueuedMessages)" in said[2]
    with project.serve(*words) as server:
        numbers = [["echo", {"number": number}, "echo"] for number in (3, 4)]
        hears(window, [*GREETING, *numbers])
        assert window.execute_script("return opened") == 2
        close_for_good(window, server)


def close_for_good(window: webdriver.Chrome, server: Child) -> None:
    """No socket opens after that, and a second bridge works beside."""
    window.execute_script("lost = 0; bridge.socket.close(1000, '', {keepClosed: true})")
    waits(window, "lost === 1")
    window.execute_script(
        "var other = new channels.WebSocketBridge();"
        "other.listen(function (message, stream) { heard.push(['other', message, stream]); });"
        "other.connect(location.href.replace('http', 'ws') + 'stream/');"
    )
    hears(window, [["other", *said[1:]] for said in GREETING])
    assert window.execute_script("return [opened, bridge.socket.readyState]") == [2, 3]
    assert "error" not in server.output.lower()


def waits(window: webdriver.Chrome, condition: str) -> None:
    wait = WebDriverWait(window, PATIENCE_SECONDS)
    wait.until(lambda driver: driver.execute_script(f"return {condition}"))


def hears(window: webdriver.Chrome, expected: list[Any]) -> None:
    """Wait until the page has heard as much, compare it, and let it forget it."""
    waits(window, f"heard.length >= {len(expected)}")
    assert window.execute_script("return heard.splice(0)") == expected
