"""Part 1: a project, an index page, and Channels in the place of Django's server."""

from __future__ import annotations

import re
import signal

import channels
from tests.processes import run
from tests.tutorial.browsing import get
from tests.tutorial.project import Project

QUESTION = "What chat room would you like to enter?"


def test_the_version_can_be_asked_for(part_1: Project) -> None:
    told = run("-c", "import channels; print(channels.__version__)", cwd=part_1.folder)
    assert told.strip() == channels.__version__


def test_before_channels_djangos_own_server_runs(part_1: Project) -> None:
    with part_1.serve("0", "--noreload") as server:
        port = int(
            server.wait_for(r"Starting (?:WSGI )?development server at http://\D*[\d.]+:(\d+)/")[1]
        )
        assert QUESTION in get(port, "/chat/")[1]


def test_channels_takes_over_runserver(with_channels: Project) -> None:
    with with_channels.serve() as server:
        port = server.wait_for_port()
        assert QUESTION in get(port, "/chat/")[1]
        assert get(port, "/chat/lobby/")[0] == 404
        assert get(port, "/admin/")[0] == 302
        server.stop(signal.SIGINT)
    assert server.process.returncode == 0
    lines = [
        "Performing system checks...",
        r"System check identified no issues \(0 silenced\).",
        r"You have \d+ unapplied migration\(s\).",
        "Run 'python manage.py migrate' to apply them.",
        r"\w+ \d+, \d{4} - \d\d:\d\d:\d\d",
        r"Django version [\d.]+, using settings 'mysite.settings'",
        rf"Starting ASGI/Channels development server at http://127.0.0.1:{port}/",
        "Quit the server with CONTROL-C.",
    ]
    assert re.search("(?s)" + ".*\n".join(lines), server.output), server.output
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - INFO - server - "
    assert re.search(f"{stamp}Listening on TCP address 127.0.0.1:{port}$", server.output, re.M)
    assert re.search(
        rf"{stamp}Configuring endpoint tcp:port={port}:interface=127.0.0.1$", server.output, re.M
    )


def test_static_files_are_served(with_channels: Project) -> None:
    with with_channels.serve() as server:
        status, text = get(server.wait_for_port(), "/static/admin/css/base.css")
        assert (status, "DJANGO Admin styles" in text) == (200, True)


def test_requests_are_logged(with_channels: Project) -> None:
    with with_channels.serve() as server:
        get(server.wait_for_port(), "/chat/")
        stamp = r"^\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] "
        server.wait_for(stamp + r"HTTP GET /chat/ 200 \[\d+\.\d\d, 127\.0\.0\.1:\d+\]$")
