"""Databases of Django's: a file of SQLite, and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.layers.postgres_server import Postgres
from benchmarks.layers.server import Broker


class Sqlite(Broker):
    """A file: there is nobody to kill, and no connection to end."""

    unfit = frozenset({"kill", "restart", "restart-unread", "roundtrip"})

    def __init__(self, folder: Path) -> None:
        self._file = folder / "layer.sqlite3"

    @property
    def config(self) -> dict[str, Any]:
        return {}

    @property
    def databases(self) -> dict[str, Any]:
        return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self._file)}}

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def kill_connections(self) -> None:
        raise NotImplementedError("a file has none")


class DatabaseOnPostgres(Postgres):
    """As any other database of Django's."""

    @property
    def config(self) -> dict[str, Any]:
        return {}

    @property
    def databases(self) -> dict[str, Any]:
        return {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "postgres",
                "HOST": "127.0.0.1",
                "PORT": self.port,
            }
        }
