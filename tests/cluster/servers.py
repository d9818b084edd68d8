"""Broker servers of the tests' own: on a free port, in a folder of their own, to be killed at will.

    server = redis_server(tmp_path)
    with server:                    # start, and at the end: stop
        server.kill()               # SIGKILL: what was not on disk is lost
        server.start()              # the same port and folder

`start` and `stop` block while they wait; in a running loop call them by `asyncio.to_thread`.
A program that is not installed skips the test with its reason, and fails it where CI is set.

Tests of Redis run on Valkey, or on another release, if CHANNELS_TEST_REDIS names its program:

    CHANNELS_TEST_REDIS=valkey-server pytest tests/contract/test_redis.py tests/cluster/test_redis*
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import pytest

#: Seconds that a server may take to answer, and to end.
START_SECONDS: Final = 50.0
STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02


class OwnServer:
    """A broker's process.

    Args:
        command: What starts it in the foreground.
        folder: Where it runs, and where its log goes.
        is_ready: Whether it answers now; may raise OSError.
        environment: Variables beside those of the test.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        port: int,
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.environment = dict(environment or {})
        self.folder = folder
        self.port = port
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run it and wait until it answers.

        Raises:
            RuntimeError: If it ended, or did not answer in `START_SECONDS`; says what it logged.
        """
        assert not self.is_running, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            # A session of its own: an interrupted test run ends it by `stop`, not by the terminal.
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(OSError):
                if self._is_ready():
                    return
            time.sleep(_POLL_SECONDS)
        self.kill()
        raise RuntimeError(f"{self.command[0]} did not start: {self.logged()}")

    def kill(self) -> None:
        """End it and its children by SIGKILL, and wait for that."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as its service manager would; by SIGKILL if that takes too long."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP to all its processes: connections stay and nothing answers, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def logged(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _signal(self, number: signal.Signals) -> None:
        # Not to the group: PostgreSQL's children are in groups of their own.
        assert self._process is not None
        pids, grown = [self._process.pid], 0
        while grown < len(pids):
            os.kill(pids[grown], number)
            pids += _children(pids[grown])
            grown += 1

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (first, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                # The whole session: some brokers fork.
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                return


def _children(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


def free_port() -> int:
    """A port of the loopback interface that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program(*names: str) -> str:
    """The path of the first of these programs that is installed; else the test is skipped."""
    for name in names:
        if found := shutil.which(name):
            return found
    missing(f"none of these programs is installed: {', '.join(names)}")


def missing(reason: str) -> NoReturn:
    """What this test needs is not on this machine: skip it, or fail where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"needed in CI: {reason}")
    pytest.skip(reason)


def answers(port: int, question: bytes, answer: bytes) -> bool:
    """True if a server on this port of the loopback interface answers as expected.

    Args:
        question: Sent first; b"" for protocols in which the server begins.
        answer: What the reply begins with.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        connection.sendall(question)
        return connection.recv(len(answer)) == answer


def redis_program() -> str:
    """The path of `redis-server`, of `valkey-server`, or of what CHANNELS_TEST_REDIS names."""
    named = os.environ.get("CHANNELS_TEST_REDIS")
    return program(named) if named else program("redis-server", "valkey-server")


def redis_server(folder: Path, *options: str, port: int | None = None) -> OwnServer:
    """A Redis, Valkey if that is what is installed or named, that writes nothing to disk.

    Args:
        options: Further ones of its command line.
    """
    found = redis_program()
    chosen = port or free_port()
    command = [
        found,
        *("--port", str(chosen), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
        *options,
    ]
    return OwnServer(command, folder, chosen, lambda: answers(chosen, b"PING\r\n", b"+PONG"))


def rabbitmq_server(
    folder: Path, *settings: str, mapper: int = 0, name: str = "", home: Path | None = None
) -> OwnServer:
    """A RabbitMQ without plugins; it takes seconds to start.  Use one for many tests.

    Args:
        settings: Further lines of its configuration.
        mapper: Port of the port mapper that it uses; 0: of one of its own, which ends with it.
        name: Of its node; "": one of its own.
        home: Of the cookie; nodes of one cluster have the same.
    """
    found = program("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
    port, distribution = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "enabled_plugins").write_text("[].")
    lines = ["loopback_users = none", *settings]
    (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines))
    environment = {
        "HOME": str(home or folder),
        "RABBITMQ_NODENAME": name or f"test{port}@127.0.0.1",
        "RABBITMQ_USE_LONGNAME": "true",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        "ERL_EPMD_PORT": str(mapper or free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    hello = b"AMQP\x00\x00\x09\x01"
    # The mapper is started here, where `kill` reaches it; RabbitMQ would make a daemon of it.
    command = [found] if mapper else ["sh", "-c", 'epmd & exec "$0"', found]
    return OwnServer(
        command, folder, port, lambda: answers(port, hello, b"\x01\x00\x00"), environment
    )


def rabbitmqctl(server: OwnServer, *words: str) -> str:
    """What RabbitMQ's administration answers; takes a second."""
    found = program("/usr/lib/rabbitmq/bin/rabbitmqctl", "rabbitmqctl")
    node = server.environment["RABBITMQ_NODENAME"]
    done = subprocess.run(
        [found, "--longnames", "--node", node, "--quiet", *words],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"rabbitmqctl {words}: {done.stdout}{done.stderr}"
    return done.stdout


def nats_server(folder: Path, more: str = "") -> OwnServer:
    """A NATS with JetStream; `more` goes into its configuration."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    config.write_text(
        f"host: 127.0.0.1, port: {port}, max_payload: 8MB\n"
        f'jetstream {{ store_dir: "{folder}/store" }}\n{more}\n'
    )
    command = [program("nats-server"), "-c", str(config)]
    return OwnServer(command, folder, port, lambda: answers(port, b"", b"INFO {"))
