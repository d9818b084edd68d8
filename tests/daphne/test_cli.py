"""The `daphne` command: each option with its default, and the rules that tie them together."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import InvalidOption
from channels.kit.types import Application, Receive, Scope, Send
from channels.layers import LocalChannelLayer
from channels.legacy.interface.application import InterfaceServer
from channels.legacy.layer import Asgi1Layer
from daphne.access import AccessLogGenerator
from daphne.cli import CommandLineInterface
from tests.processes import PATIENCE_SECONDS, Child, environment
from tests.server.conftest import make_certificate
from tests.tutorial.browsing import get

MIB = 1024 * 1024


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


class NoServer:
    """Takes what a server would be made with."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def run(self) -> None:
        self.given["has run"] = True


def run(*words: str) -> dict[str, Any]:
    interface = CommandLineInterface()
    interface.server_class = NoServer  # type: ignore[assignment]
    interface.run([*words, "tests.daphne.test_cli:application"])
    assert isinstance(interface.server, NoServer)
    return interface.server.given


def test_defaults() -> None:
    given = run()
    assert given.pop("application") is application
    assert isinstance(given.pop("action_logger"), AccessLogGenerator)
    assert given == {
        "endpoints": ["tcp:port=8000:interface=127.0.0.1"],
        "http_timeout": None,
        "ping_interval": 20,
        "ping_timeout": 30,
        "websocket_timeout": 86400,
        "websocket_connect_timeout": 5,
        "websocket_handshake_timeout": 5,
        "websocket_max_message_size": MIB,
        "websocket_max_frame_size": MIB,
        "application_close_timeout": 10,
        "root_path": "",
        "verbosity": 1,
        "server_name": "daphne",
        "has run": True,
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-p", "123"], ["tcp:port=123:interface=127.0.0.1"]),
        (["-b", "10.0.0.1"], ["tcp:port=8000:interface=10.0.0.1"]),
        (["-b", "[200a::1]"], [r"tcp:port=8000:interface=200a\:\:1"]),
        (["-p", "8080", "-b", "0.0.0.0"], ["tcp:port=8080:interface=0.0.0.0"]),
        (["-u", "/tmp/d.sock"], ["unix:/tmp/d.sock"]),
        (["--fd", "5"], ["fd:fileno=5"]),
        (["-u", "/tmp/d.sock", "--fd", "5"], ["fd:fileno=5", "unix:/tmp/d.sock"]),
        (
            ["-u", "/tmp/d.sock", "--port", "8000"],
            ["tcp:port=8000:interface=127.0.0.1", "unix:/tmp/d.sock"],
        ),
        (["-e", "ssl:443:privateKey=k:certKey=c"], ["ssl:443:privateKey=k:certKey=c"]),
        (
            ["-p", "80", "-e", "unix:/b", "--endpoint", "ssl:443:certKey=c"],
            ["ssl:443:certKey=c", "tcp:port=80:interface=127.0.0.1", "unix:/b"],
        ),
    ],
)
def test_endpoints(words: list[str], expected: list[str]) -> None:
    assert run(*words)["endpoints"] == expected


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-t", "60"], "http_timeout", 60),
        (["--http-timeout", "60"], "http_timeout", 60),
        (["--ping-interval", "4"], "ping_interval", 4),
        (["--ping-timeout", "5"], "ping_timeout", 5),
        (["--websocket_timeout", "-1"], "websocket_timeout", -1),
        (["--websocket_connect_timeout", "7"], "websocket_connect_timeout", 7),
        (["--websocket_connect_timeout", "7"], "websocket_handshake_timeout", 7),
        (["--websocket-max-message-size", "0"], "websocket_max_message_size", 0),
        (["--websocket-max-frame-size", "500"], "websocket_max_frame_size", 500),
        (["--application-close-timeout", "3"], "application_close_timeout", 3),
        (["--root-path", "/site"], "root_path", "/site"),
        (["-v", "2"], "verbosity", 2),
        (["-s", "mine"], "server_name", "mine"),
        (["--server-name", ""], "server_name", ""),
        (["--no-server-name"], "server_name", ""),
        (["--proxy-headers"], "proxy_forwarded_address_header", "X-Forwarded-For"),
        (["--proxy-headers"], "proxy_forwarded_port_header", "X-Forwarded-Port"),
        (["--proxy-headers"], "proxy_forwarded_proto_header", "X-Forwarded-Proto"),
        (
            ["--proxy-headers", "--proxy-headers-host", "X-Real"],
            "proxy_forwarded_address_header",
            "X-Real",
        ),
        (
            ["--proxy-headers", "--proxy-headers-port", "X-Real"],
            "proxy_forwarded_port_header",
            "X-Real",
        ),
    ],
)
def test_options(words: list[str], name: str, value: object) -> None:
    assert run(*words)[name] == value


class TestChannelLayers:
    @pytest.fixture(autouse=True)
    def layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = LocalChannelLayer()
        layer.routing = []
        monkeypatch.setitem(globals(), "application", Asgi1Layer(layer))

    def test_one_has_an_interface_server(self) -> None:
        given = run("--ws-protocol", "a", "--ws-protocol", "b", "--force-sync", "--prefix", "x")
        assert isinstance(given["application"], InterfaceServer)
        assert given["application"].options.ws_protocol == ("a", "b")

    @pytest.mark.parametrize(("words", "seconds"), [([], 120), (["-t", "9"], 9), (["-t", "0"], 0)])
    def test_a_response_has_two_minutes(self, words: list[str], seconds: int) -> None:
        assert run(*words)["http_timeout"] == seconds


@pytest.mark.parametrize(
    "flag",
    [
        "--proxy-headers-host",
        "--proxy-headers-port",
        "--proxy-headers-root-path",
        "--trusted-proxies",
    ],
)
def test_a_name_for_a_proxy_header_needs_proxy_headers(flag: str) -> None:
    with pytest.raises(ArgumentError, match="--proxy-headers"):
        run(flag, "X-Real")


def test_proxies_and_the_header_of_the_root_path_are_passed_on_only_if_they_are_named() -> None:
    assert not {"trusted_proxies", "proxy_root_path_header"} & run("--proxy-headers").keys()
    words = ("--trusted-proxies", "10.0.0.1, unix", "--trusted-proxies", "::1")
    found = run("--proxy-headers", *words, "--proxy-headers-root-path", "Daphne-Root-Path")
    assert found["trusted_proxies"] == ("10.0.0.1", "unix", "::1")
    assert found["proxy_root_path_header"] == "Daphne-Root-Path"


@pytest.mark.parametrize(
    ("words", "warns"),
    [
        (["--proxy-headers"], True),
        (["--proxy-headers", "--trusted-proxies", "127.0.0.1"], False),
        ([], False),
    ],
)
def test_who_believes_everybody_is_warned_in_the_first_line(
    tmp_path: Path, words: list[str], warns: bool
) -> None:
    (tmp_path / "pages.py").write_text("async def application(scope, receive, send): ...\n")
    with Child("-m", "daphne", "-p", "0", *words, "pages:application", cwd=tmp_path) as server:
        server.wait_for_port()
        first = server.output.splitlines()[0]
        assert ("WARNING" in first and "--trusted-proxies" in first) is warns


def test_the_access_log(tmp_path: Path) -> None:
    assert run("-v", "0")["action_logger"] is None
    assert run("-v", "0", "--access-log", "-")["action_logger"].stream.name == "stdout"
    path = tmp_path / "access.log"
    path.write_text("before\n")
    logger = run("--access-log", str(path))["action_logger"]
    logger(
        "http",
        "complete",
        {"client": "a:1", "method": "GET", "path": "/", "status": 200, "size": 5},
    )
    # Lines are written by a thread, soon.
    assert logger.stream.drain(10)
    assert path.read_text().splitlines()[0] == "before"
    assert path.read_text().endswith('] "GET /" 200 5\n')


def test_a_bad_application() -> None:
    with pytest.raises(InvalidOption, match="no module 'nowhere'"):
        CommandLineInterface().run(["nowhere:application"])


def test_it_serves(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(
        "async def application(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'served'})\n"
    )
    with Child("-m", "daphne", "-p", "0", "pages:application", cwd=tmp_path) as server:
        assert get(server.wait_for_port(), "/page")[1] == "served"
        server.wait_for(r'^127\.0\.0\.1:\d+ - - \[.+\] "GET /page" 200 6$')
        assert server.stop() == 0


def test_the_command_tells_errors_in_one_line(tmp_path: Path) -> None:
    for words in (["nowhere:application"], ["--proxy-headers-host", "X", "sys:path"]):
        with Child("-m", "daphne", *words, cwd=tmp_path) as server:
            assert server.wait() == 2
        assert "daphne: error: " in server.output
        assert "Traceback" not in server.output


def test_verbosity_3_turns_the_debug_mode_of_asyncio_on(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(
        "import asyncio\n"
        "async def application(scope, receive, send):\n"
        "    said = str(asyncio.get_running_loop().get_debug()).encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': said})\n"
    )
    for level, debug in (("1", "False"), ("3", "True")):
        words = ("-m", "daphne", "-v", level, "-p", "0", "pages:application")
        with Child(*words, cwd=tmp_path) as server:
            assert get(server.wait_for_port(), "/") == (200, debug)


def test_a_subclass_of_the_command_finds_applications_in_its_own_way() -> None:
    class Own(CommandLineInterface):
        server_class = NoServer  # type: ignore[assignment]

        def load_asgi_app(self, asgi_app_path: str) -> Application:
            assert asgi_app_path == "somewhere"
            return application

    interface = Own()
    interface.run(["somewhere"])
    assert isinstance(interface.server, NoServer)
    assert interface.server.given["application"] is application


def test_the_form_of_a_log_line(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text("async def application(scope, receive, send): ...\n")
    words = ("--log-fmt", "LINE %(levelname)s %(message)s", "-p", "0", "pages:application")
    with Child("-m", "daphne", *words, cwd=tmp_path) as server:
        server.wait_for(r"^LINE INFO Listening on TCP address 127\.0\.0\.1:\d+$")


SERVED = """\
async def application(scope, receive, send):
    said = f"{scope['scheme']} {scope['server']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said})
"""
HELLO = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def answer(sock: socket.socket) -> str:
    """The body of the answer on a socket that is connected."""
    sock.settimeout(PATIENCE_SECONDS)
    sock.sendall(HELLO)
    received = b""
    while piece := sock.recv(4096):
        received += piece
    return received.rpartition(b"\r\n")[2].decode()


def test_it_serves_tls_and_a_unix_socket(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(SERVED)
    tls = make_certificate(tmp_path)
    files = f"privateKey={tls.private_key}:certKey={tls.certificate}"
    words = ("-m", "daphne", "-u", "web.sock", "-e", f"ssl:0:{files}:interface=127.0.0.1")
    with Child(*words, "pages:application", cwd=tmp_path) as server:
        port = server.wait_for_port()
        server.wait_for(r"Listening on Unix socket web\.sock$")
        context = ssl.create_default_context(cafile=tls.certificate)
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            assert answer(secure) == f"https ['127.0.0.1', {port}]"
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(str(tmp_path / "web.sock"))
            assert answer(unix) == "http ['web.sock', None]"
        assert server.stop() == 0
    assert not (tmp_path / "web.sock").exists()


@pytest.mark.parametrize("how", ["--fd", "fd:", "systemd:index="])
def test_it_serves_a_socket_that_it_inherits(tmp_path: Path, how: str) -> None:
    (tmp_path / "pages.py").write_text(SERVED)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        # A client that comes before the server waits in the socket's queue.
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as early:
            # The socket must be descriptor 3: systemd passes no other as the first.
            place = ["--fd", "3"] if how == "--fd" else ["-e", how + ("3" if how == "fd:" else "0")]
            command = [sys.executable, "-m", "daphne", *place, "pages:application"]
            code = (
                "import os, sys; number = int(sys.argv[1]); "
                "number == 3 or os.dup2(number, 3); os.set_inheritable(3, True); "
                "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
                "os.execv(sys.argv[2], sys.argv[2:])"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(listening.fileno()), *command],
                pass_fds=[listening.fileno()],
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                assert answer(early) == f"http ['127.0.0.1', {port}]"
            finally:
                process.terminate()
                assert process.wait(PATIENCE_SECONDS) == 0
