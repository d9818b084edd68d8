"""A MariaDB server of the tests' own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster.servers import OwnServer, free_port, missing, program

#: What neither disk nor memory of a test's server needs.
_SMALL: Final = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=32M",
    "--skip-name-resolve",
)


@contextlib.contextmanager
def mariadb_server() -> Iterator[OwnServer]:
    """One that runs, with the user "root" without a password and the database "test".

    Making its data takes seconds: use one for many tests.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("mariadbd", path=path) or missing("MariaDB's server is not installed")
    install = program("mariadb-install-db")
    # pytest's own folders belong to the tests' user alone, and the server runs as another.
    folder = Path(tempfile.mkdtemp(prefix="channels-mariadb-"))
    user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("mysql")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = ["--user=mysql"]
    # One that starts removes what it takes for its own temporary tables, another's in /tmp too.
    data = (f"--datadir={folder / 'data'}", f"--tmpdir={folder}")
    try:
        _install([install, "--no-defaults", *data, *user, *_SMALL])
        (folder / "data" / "test").mkdir()
        if user:
            os.chown(folder / "data" / "test", owner.pw_uid, owner.pw_gid)
        port = free_port()
        command = [
            *(found, "--no-defaults", *data, *user, *_SMALL),
            *(f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"),
        ]
        with OwnServer(command, folder, port, lambda: _greets(port)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(command: list[str]) -> None:
    whole = [*command, "--auth-root-authentication-method=normal", "--skip-test-db"]
    done = subprocess.run(whole, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{whole[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        # The length and the number of the first packet, and the protocol's version.
        return connection.recv(5)[4:] == b"\x0a"
