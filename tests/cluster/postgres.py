"""A PostgreSQL server of a test's own; it may be killed at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.cluster.servers import OwnServer, free_port, missing, program


class PostgresServer(OwnServer):
    """Its processes are children of one that `kill` ends without a shutdown checkpoint."""

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def django(self) -> dict[str, str]:
        """What DATABASES says of it."""
        return django_settings(self.port)

    def kill(self) -> None:
        """The immediate shutdown: all its processes end at once; the next start recovers.

        SIGKILL would leave the children for a while, which the next start refuses to join.
        """
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        # Does not wait for clients.
        self._end(signal.SIGINT)

    def run(self, query: str) -> list[tuple[object, ...]]:
        """The rows of a statement, on a connection of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def end_connections(self) -> None:
        """Have the server end all connections but this one."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


class PostgresFolder:
    """A data folder in the system's temporary one, made for a user that may run the server.

    pytest's own folders belong to the tests' user alone, and the server refuses to run as root.
    """

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, reversed(binaries))])
        found = {name: shutil.which(name, path=path) for name in ("initdb", "postgres")}
        if None in found.values():
            missing("PostgreSQL's server is not installed")
        self._initdb, self._postgres = str(found["initdb"]), str(found["postgres"])
        self._as_user: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="channels-postgres-"))
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = [
                program("setpriv"),
                *(f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"),
            ]
        command = [self._initdb, "--pgdata", str(self.folder / "data"), "--username=postgres"]
        subprocess.run(
            [*self._as_user, *command, "--auth=trust", "--no-sync", "--no-instructions"],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def server(self, *options: str) -> PostgresServer:
        """A server on it, on a port of its own; not started."""
        port = free_port()
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
        }
        command = [*self._as_user, self._postgres, "-D", str(self.folder / "data"), *options]
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]

        def is_ready() -> bool:
            try:
                psycopg.connect(server.dsn, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                raise ConnectionError from error
            return True

        server = PostgresServer(command, self.folder, port, is_ready)
        return server

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def django_settings(port: int) -> dict[str, str]:
    """What DATABASES says of a server of the tests', or of what listens before it."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    missing("root may not run PostgreSQL, and there is no other user")
