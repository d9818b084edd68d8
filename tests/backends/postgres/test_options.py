"""What CONFIG may say to the layer on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from channels.backends.postgres import PostgresChannelLayer
from channels.backends.postgres.address import Places
from channels.exceptions import InvalidChannelLayerError, InvalidOption
from channels.settings import postgres_parameters
from tests.layers.databases import alias

__all__ = ["alias"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dsn": "postgresql://host/name?colour=red"}, "dsn cannot be read.*colour"),
        ({"dsn": {"colour": "red"}}, "dsn cannot be read.*colour"),
        ({"dsn": 5432}, "dsn is of type int; expected a DSN"),
        ({"dsn": "dbname=x", "listen_dsn": ["x"]}, "listen_dsn is of type list; expected a DSN"),
        ({"dsn": "dbname=x", "database": "default"}, "both given"),
        ({"tables": "Robert'); --"}, "tables=.*lower-case letters"),
        ({"schema": ""}, "schema=''"),
        ({"prefix": None}, "prefix=None"),
        (
            {"hosts": ["x"]},
            r"PostgresChannelLayer does not know hosts\. Its own options are .* dsn, ",
        ),
    ],
)
def test_mistakes_say_what_was_found(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=said):
        PostgresChannelLayer(**config)


def test_bounds_are_checked() -> None:
    with pytest.raises(InvalidOption, match="poll_interval=60"):
        PostgresChannelLayer("dbname=x", poll_interval=60)


def test_both_connections_go_to_one_place_unless_told() -> None:
    places = Places({"host": "a", "connect_timeout": 1}, None, None)
    assert places.listen() == places.work()
    assert places.work()["connect_timeout"] == 1
    assert places.work()["target_session_attrs"] == "read-write"
    places = Places("host=pooler dbname=x", "host=server dbname=x", None)
    assert (places.work()["host"], places.listen()["host"]) == ("pooler", "server")


def test_an_alias_in_the_words_of_libpq(alias: Callable[..., str]) -> None:
    alias(
        "elsewhere",
        ENGINE="django.db.backends.postgresql",
        NAME="shop",
        USER="me",
        HOST="db",
        OPTIONS={"sslmode": "require", "pool": True, "isolation_level": 3},
    )
    assert postgres_parameters("elsewhere") == {
        "dbname": "shop",
        "user": "me",
        "host": "db",
        "sslmode": "require",
    }


def test_an_alias_that_cannot_be_used(alias: Callable[..., str]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"'nowhere'.*default"):
        postgres_parameters("nowhere")
    with pytest.raises(InvalidChannelLayerError, match="found sqlite"):
        postgres_parameters("default")


async def test_an_alias_that_cannot_be_used_is_told_to_who_uses_it_first() -> None:
    layer = PostgresChannelLayer(database="nowhere")
    with pytest.raises(InvalidChannelLayerError, match="'nowhere'"):
        await layer.new_channel()


def test_importing_the_layers_imports_no_driver() -> None:
    code = (
        "import sys, channels.layers as layers; assert 'psycopg' not in sys.modules; "
        "sys.modules['psycopg'] = None\n"
        "try: layers.PostgresChannelLayer\n"
        'except ImportError as error: assert "psycopg[binary]" in str(error)\n'
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
