"""PostgreSQL with a data folder of its own, and a connection to watch it by."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.layers.server import Broker, NotInstalled, Server, free_port

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "shared_buffers": "32MB",
}
END_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class Postgres(Broker):
    """initdb and postgres, as another user where this one is root, whom they refuse."""

    unfit = frozenset({"roundtrip"})

    def __init__(self, folder: Path) -> None:
        newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, newest_first)])
        initdb, postgres = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
        if initdb is None or postgres is None:
            raise NotInstalled("PostgreSQL's server")
        self.port = free_port()
        as_user = become_other(folder) if os.geteuid() == 0 else []
        data = str(folder / "data")
        subprocess.run(
            [*as_user, initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        command = [*as_user, postgres, "-D", data, "-p", str(self.port)]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self._server = Server(command, folder)

    @property
    def config(self) -> dict[str, Any]:
        return {"dsn": self.address}

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._server.start(self._answers)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """By default the shutdown that does not wait for clients."""
        super().end(number)

    def pause(self) -> None:
        self._server.tell_family(signal.SIGSTOP)

    def kill(self) -> None:
        """All its processes: while one is left, the next start refuses."""
        self._server.tell_family(signal.SIGKILL)
        super().end(signal.SIGKILL)

    def kill_connections(self) -> None:
        with self._connect() as connection:
            connection.execute(END_ALL)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError as error:
            raise ConnectionError from error
        return True

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.address, autocommit=True, connect_timeout=2)


def become_other(folder: Path) -> list[str]:
    """What to put before a command to run it as a user without rights, who gets the folder."""
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    raise NotInstalled("a user who may run PostgreSQL's server")
