"""`channels serve`: what it takes, what it refuses and how it says so, and that it serves."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import channels
from channels import cli
from channels.kit.options import from_mapping
from channels.kit.threads import ThreadOptions
from channels.layers import LocalChannelLayer
from channels.legacy.interface.application import InterfaceServer
from channels.server.endpoints import parse_endpoint
from channels.server.listening import ListeningServer
from tests.processes import Child
from tests.server.conftest import make_certificate
from tests.tutorial.browsing import get

APPLICATION = """\
import os


async def unwilling(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def application(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        text = f"{scope['root_path']} {os.getpid()}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})


def wsgi(environ, start_response):
    return []


class Site:
    inner = staticmethod(application)


class OfTwoSteps:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await application(self.scope, receive, send)


class Layer:
    async def new_channel(self):
        return ""

    async def send(self, channel, message):
        pass


layer = Layer()
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module `pages`."""
    (tmp_path / "pages.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("pages", None)


def options(*words: str, **environ: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        namespace = cli.make_parser().parse_args(["serve", "pages:application", *words])
        return cli.given_values(namespace, cli._tables())


class TestOptions:
    def test_without_any_it_listens_on_port_8000_of_this_machine(self) -> None:
        assert cli.Listening().endpoints(set()) == [
            parse_endpoint("tcp:port=8000:interface=127.0.0.1")
        ]

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["-p", "9000"], ["tcp:port=9000:interface=127.0.0.1"]),
            (["-b", "0.0.0.0"], ["tcp:port=8000:interface=0.0.0.0"]),
            (["--host", "[::1]"], [r"tcp:port=8000:interface=\:\:1"]),
            (["-u", "/tmp/s"], ["unix:/tmp/s"]),
            (["--fd", "3"], ["fd:fileno=3"]),
            (["-e", "unix:/a", "-e", "unix:/b"], ["unix:/a", "unix:/b"]),
            (["-u", "/s", "-p", "1"], ["unix:/s", "tcp:port=1:interface=127.0.0.1"]),
            (
                ["-u", "/s", "-b", "10.0.0.1"],
                ["unix:/s", "tcp:port=8000:interface=10.0.0.1"],
            ),
            (["-e", "ssl:1:privateKey=k"], ["ssl:1:privateKey=k:interface=127.0.0.1"]),
            (["--certificate", "c"], ["ssl:8000:privateKey=c:certKey=c:interface=127.0.0.1"]),
            (
                ["--certificate", "c", "--private-key", "k", "-b", "0.0.0.0", "-u", "/s"],
                ["unix:/s", "ssl:8000:privateKey=k:certKey=c:interface=0.0.0.0"],
            ),
            (["-e", "tcp:1"], ["tcp:1:interface=127.0.0.1"]),
            (["-e", "tcp6:1"], [r"tcp:1:interface=\:\:"]),
            (
                ["-e", "ssl:1:privateKey=k", "-b", "[::1]"],
                [r"ssl:1:privateKey=k:interface=\:\:1"],
            ),
            (
                ["-e", "tcp:1:interface=10.0.0.2", "-b", "10.0.0.1"],
                ["tcp:1:interface=10.0.0.2", "tcp:port=8000:interface=10.0.0.1"],
            ),
            (
                ["-e", "ssl:1:privateKey=k", "-p", "2"],
                ["ssl:1:privateKey=k:interface=127.0.0.1", "tcp:port=2:interface=127.0.0.1"],
            ),
        ],
    )
    def test_places(self, words: list[str], expected: list[str]) -> None:
        values = options(*words)
        found = from_mapping(cli.Listening, values).endpoints(set(values))
        assert found == [parse_endpoint(text) for text in expected]

    def test_the_servers_tables_have_flags_and_variables(self) -> None:
        values = options(
            "--ping-interval", "7", CHANNELS_PING_TIMEOUT="9", CHANNELS_MAX_HEADERS="50"
        )
        made = cli.server_options(values)
        assert (made.timeouts.ping_interval, made.timeouts.ping_timeout) == (7, 9)
        assert made.limits.max_headers == 50

    def test_the_threads_of_sync_code(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configured: list[ThreadOptions] = []
        monkeypatch.setattr(cli, "configure_threads", configured.append)
        monkeypatch.setattr(ListeningServer, "run", lambda self: None)
        assert cli.main(["serve", "pages:application", "--sync-threads", "3"]) == 0
        monkeypatch.setenv("CHANNELS_SYNC_THREADS", "4")
        assert cli.main(["serve", "pages:application"]) == 0
        assert configured == [ThreadOptions(sync_threads=3), ThreadOptions(sync_threads=4)]

    def test_a_flag_beats_the_environment(self) -> None:
        assert options("-p", "1", CHANNELS_PORT="2")["port"] == 1
        assert options(CHANNELS_PORT="2")["port"] == 2

    def test_a_bad_value_ends_with_status_2_and_says_which(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", "pages:application", "--port", "70000"])
        assert ended.value.code == 2
        assert "port=70000: the most is 65535" in capsys.readouterr().err

    def test_a_bad_variable_does_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CHANNELS_PING_INTERVAL", "often")
        assert cli.main(["serve", "pages:application"]) == 2
        said = "CHANNELS_PING_INTERVAL: ping_interval='often': expected a number."
        assert said in capsys.readouterr().err

    def test_a_variable_that_no_option_has_is_warned_of(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(ListeningServer, "run", lambda self: None)
        monkeypatch.setenv("CHANNELS_PARALLEL", "3")  # of `runworker`, in the same environment
        monkeypatch.setenv("CHANNELS_WEBSOCKET_MAX_MESSAGE_SIZES", "7")
        monkeypatch.setenv("CHANNELS_WEBSOCKET_MAX_FRAME_SIZE", "500")
        assert cli.main(["serve", "pages:application"]) == 0
        (line,) = (
            each.getMessage() for each in caplog.records if "CHANNELS_" in each.msg % each.args
        )
        assert line.endswith("did you mean CHANNELS_WEBSOCKET_MAX_MESSAGE_SIZE?")
        namespace = cli.make_parser().parse_args(["serve", "pages:application"])
        made = cli.server_options(cli.given_values(namespace, cli._tables()))
        assert made.limits.max_frame_bytes == 500

    def test_what_kubernetes_writes_for_a_service_is_passed_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CHANNELS_PORT", "tcp://10.0.0.1:80")
        namespace = cli.make_parser().parse_args(["serve", "pages:application"])
        assert "port" not in cli.given_values(namespace, cli._tables())

    def test_an_error_comes_first_and_without_a_page_of_flags(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve"])
        assert ended.value.code == 2
        assert capsys.readouterr().err == (
            "channels serve: error: the following arguments are required: application\n"
            "channels serve --help tells more.\n"
        )

    def test_the_command_that_lacks_a_flag_says_so(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", "pages:application", "--prot", "3"])
        assert ended.value.code == 2
        assert capsys.readouterr().err == (
            "channels serve: error: unrecognized arguments: --prot 3\n"
            "channels serve --help tells more.\n"
        )

    def test_help_lists_every_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            cli.main(["serve", "--help"])
        text = capsys.readouterr().out
        for flag in (
            "--websocket-max-message-size",
            "--ping-interval",
            "--root-path",
            "-e ENDPOINT",
        ):
            assert flag in text

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            cli.main(["--version"])
        assert capsys.readouterr().out.strip() == channels.__version__


class TestServing:
    def test_a_page_its_access_line_and_the_end(self, folder: Path) -> None:
        with serve(folder, "--root-path", "/site") as server:
            assert get(server.wait_for_port(), "/page?x=1")[1].startswith("/site ")
            server.wait_for(r'^127\.0\.0\.1:\d+ - - \[.+\] "GET /page.* 200 \d+ \d+\.\d{3}$')
            assert server.stop(signal.SIGTERM) == 0

    def test_the_access_log_may_be_a_file(self, folder: Path) -> None:
        with serve(folder, "--access-log", "access.log") as server:
            get(server.wait_for_port(), "/page")
        assert '"GET /page" 200' in (folder / "access.log").read_text()
        assert "GET /page" not in server.output

    def test_the_access_log_in_json_tells_what_was_refused_and_why(self, folder: Path) -> None:
        with serve(folder, "--access-log-format", "json") as server:
            with socket.create_connection(("127.0.0.1", server.wait_for_port())) as client:
                client.sendall(b"GET /long?x HTTP/1.1\r\nHost: x\r\nA: " + bytes([1]) + b"\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 400")
            server.wait_for('"path": "/long.x", "status": 400, .*"reason": "')

    def test_all_logs_in_json_with_the_id_that_the_proxy_gave(self, folder: Path) -> None:
        with serve(folder, "--log-format", "json", "--trusted-proxies", "127.0.0.1") as server:
            port = server.wait_for(r'Listening on TCP address 127\.0\.0\.1:(\d+)"')[1]
            with socket.create_connection(("127.0.0.1", int(port))) as client:
                client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\nX-Request-ID: from-proxy\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            server.wait_for('"path": "/a", .*"request_id": "from-proxy"')
            server.stop(signal.SIGTERM)
        found = [json.loads(line) for line in server.output.splitlines()]
        assert {"channels.server", "channels.cli"} & {line.get("logger") for line in found}

    def test_what_is_wrong_with_the_layers_is_told_at_the_start(self, folder: Path) -> None:
        (folder / "pages.py").write_text(
            "import django\n"
            "from django.conf import settings\n"
            "settings.configure(CHANNEL_LAYERS={'default': {'BACKEND': 'nowhere.Layer'}})\n"
            f"django.setup()\n{APPLICATION}"
        )
        with serve(folder) as server:
            server.wait_for(r"ERROR +The BACKEND 'nowhere\.Layer' .*\(channels\.E003\)$")
            assert get(server.wait_for_port(), "/page")[0] == 200

    def test_tls(self, folder: Path) -> None:
        files = make_certificate(folder)
        words = ("--certificate", files.certificate, "--private-key", files.private_key)
        with serve(folder, *words) as server:
            port = server.wait_for_port()
            trusted = ssl.create_default_context(cafile=files.certificate)
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                trusted.wrap_socket(plain, server_hostname="127.0.0.1") as client,
            ):
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert server.stop() == 0

    def test_a_key_without_its_certificate(self, folder: Path) -> None:
        with serve(folder, "--private-key", "key.pem") as server:
            assert server.wait() == 2
        assert "--private-key needs the certificate that it is of" in server.output

    def test_a_unix_socket(self, folder: Path) -> None:
        with Child("-m", "channels", "serve", "pages:application", "-u", "s", cwd=folder) as server:
            server.wait_for("Listening on")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(folder / "s"))
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")

    def test_a_port_in_use_is_told_in_one_line(self, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            with serve(folder, "--port", port) as server:
                assert server.wait() == 1
        (line,) = server.output.splitlines()
        assert line.startswith("channels serve: error: ")
        assert line.endswith("in use; stop what listens there, or take another --port.")

    def test_an_error_in_the_application_is_shown_from_its_own_line_on(self, folder: Path) -> None:
        (folder / "pages.py").write_text("import os\n\nos.envron\n")
        with serve(folder) as server:
            assert server.wait() == 1
        first, *lines = server.output.splitlines()
        assert first == "channels serve: error: importing pages:application failed:"
        files = [line for line in lines if line.startswith("  File ")]
        assert files == [f'  File "{folder}/pages.py", line 3, in <module>']
        assert "AttributeError: module 'os' has no attribute 'envron'" in lines[-1]

    def test_an_application_that_cannot_start_is_told_in_one_line(self, folder: Path) -> None:
        words = ("serve", "pages:unwilling", "--port", "0")
        with Child("-m", "channels", *words, cwd=folder) as server:
            assert server.wait() == 1
        assert "error: The application failed to start: no database" in server.output
        assert "Traceback" not in server.output

    def test_a_bad_application_is_told_in_one_line(self, folder: Path) -> None:
        with Child("-m", "channels", "serve", "pages:app", cwd=folder) as server:
            assert server.wait() == 2
        assert server.output.startswith("channels serve: error: 'pages:app': ")
        assert len(server.output.splitlines()) == 1


BROKEN = """\
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "conf"
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path


class Broken(AsyncWebsocketConsumer):
    async def connect(self):
        raise ValueError("consumer")


async def broken(scope, receive, send):
    raise ValueError("application")


views = get_asgi_application()
http = URLRouter([path("view/", views), path("application/", broken)])
websocket = URLRouter([path("consumer/", Broken.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
"""
CONF = """\
from django.urls import path

SECRET_KEY = "x"
DEBUG = {debug}
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "conf"
INSTALLED_APPS = ["channels"]


def view(request):
    raise ValueError("view")


urlpatterns = [path("view/", view)]
"""


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("command", [["channels", "serve"], ["daphne"]], ids=" ".join)
def test_each_error_is_shown_once_whatever_debug_says(
    tmp_path: Path, command: list[str], debug: bool
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "conf.py").write_text(CONF.format(debug=debug))
    words = ("-m", *command, "broken:application", "--port", "0")
    with Child(*words, cwd=tmp_path) as server:
        port = server.wait_for_port()
        for kind in ("view", "application"):
            assert get(port, f"/{kind}/")[0] == 500
        with pytest.raises(InvalidStatus, match="500"):
            connect(f"ws://127.0.0.1:{port}/consumer/")
        server.stop()
    for kind in ("view", "application", "consumer"):
        assert server.output.count(f"\nValueError: {kind}\n") == 1, server.output


def serve(folder: Path, *words: str) -> Child:
    given = words if "--port" in words else ("--port", "0", *words)
    return Child("-m", "channels", "serve", "pages:application", *given, cwd=folder)


class TestInterface:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["pages:application"], "is no channel layer: .*`channels serve pages:application`"),
            (["pages:nothing"], "has no attribute 'nothing'"),
            (["--layer", "other"], "There is no 'other' in CHANNEL_LAYERS: name the settings in"),
            ([], "InMemoryChannelLayer stays inside one process, and no worker runs in this one"),
            (["--full-timeout", "-1", "pages:layer"], "full_timeout=-1.0: the least is 0"),
        ],
    )
    def test_what_cannot_be_is_told_in_one_line(
        self, folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli, "_set_up_logging", lambda *_: None)
            try:
                status = cli.main(["interface", *words])
            except SystemExit as ending:
                status = int(str(ending.code))
        assert status == 2
        first, *more = capsys.readouterr().err.splitlines()
        assert re.search(f"^channels interface: error: .*{said}", first)
        assert not [line for line in more if "--help" not in line]

    @pytest.mark.parametrize(
        ("words", "seconds"), [([], 120.0), (["--http-timeout", "7"], 7.0), (["-p", "0"], 120.0)]
    )
    def test_a_response_has_two_minutes(
        self, folder: Path, words: list[str], seconds: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []

        def serve(command: str, name: str, application: Any, values: Any, *_: Any) -> int:
            made.append((application, cli.server_options(values)))
            return 0

        layer = LocalChannelLayer()
        layer.routing = []
        monkeypatch.setattr(cli, "_serve", serve)
        monkeypatch.setattr(cli, "_set_up_logging", lambda *_: None)
        monkeypatch.setattr(cli, "find_layer", lambda path, alias: layer)
        assert cli.main(["interface", *words]) == 0
        ((application, options),) = made
        assert isinstance(application, InterfaceServer)
        assert options.timeouts.http_timeout == seconds
