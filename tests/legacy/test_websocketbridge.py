"""The script for pages; what it does is tested in a browser."""

from __future__ import annotations

import tomllib

from django.contrib.staticfiles import finders

from tests.processes import SRC


def test_django_finds_it() -> None:
    found = finders.find("channels/js/websocketbridge.js")
    assert found == str(SRC / "channels/static/channels/js/websocketbridge.js")


def test_it_is_in_the_package() -> None:
    told = tomllib.loads((SRC.parent / "pyproject.toml").read_text())
    patterns = told["tool"]["setuptools"]["package-data"]["channels"]
    packed = {path for pattern in patterns for path in (SRC / "channels").glob(pattern)}
    static = {path for path in (SRC / "channels" / "static").rglob("*") if path.is_file()}
    assert static
    assert static <= packed
