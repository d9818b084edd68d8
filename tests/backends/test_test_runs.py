"""`manage.py test` of a project whose channel layer is in its database."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.layers.databases import postgres_dsn

__all__ = ["postgres_dsn"]

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["shop"]
DATABASES = {"default": %r}
CHANNEL_LAYERS = {"default": {"BACKEND": %r, "CONFIG": {"database": "default"}}}
"""
TESTS = """
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import connection
from django.test import TestCase

class LayerTests(TestCase):
    def test_all_that_a_layer_does(self):
        # SQLite lets no other write until this transaction is over.
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE other (id int)")
        layer = get_channel_layer()
        channel = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)("room", channel)
        layer.sync.group_send("room", {"type": "x"})
        layer.sync.send("work", {"type": "y"})
        self.assertEqual(layer.sync.receive(channel, 5), {"type": "x"})
        self.assertEqual(layer.sync.receive("work", 5), {"type": "y"})

    test_it_again = test_all_that_a_layer_does
"""


def run_tests(folder: Path, layer: str, database: dict[str, Any]) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "tests.py").write_text(TESTS)
    backend = f"channels.layers.{layer}"
    (folder / "project.py").write_text(SETTINGS % (database, backend))
    command = [sys.executable, "-m", "django", "test", "--settings=project", "--noinput"]
    done = subprocess.run(
        [*command, f"--pythonpath={folder}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr
    # No warning of a lost connection, and none that the database cannot be dropped.
    assert done.stderr.endswith("OK\nDestroying test database for alias 'default'...\n")


@pytest.mark.parametrize("layer", ["PostgresChannelLayer", "DatabaseChannelLayer"])
def test_a_postgresql(postgres_dsn: str, tmp_path: Path, layer: str) -> None:
    found = conninfo_to_dict(postgres_dsn)
    name = f"test_{uuid.uuid4().hex[:16]}"
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": found["dbname"],
        "USER": found.get("user", ""),
        "PASSWORD": found.get("password", ""),
        "HOST": found.get("host", ""),
        "PORT": found.get("port", ""),
        "TEST": {"NAME": name},
    }
    run_tests(tmp_path, layer, database)
    with psycopg.connect(postgres_dsn) as connection:
        left = connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        assert not left.fetchall()


def test_sqlite_in_memory(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
    run_tests(tmp_path, "DatabaseChannelLayer", database)
    assert not (tmp_path / "db.sqlite3").exists()
