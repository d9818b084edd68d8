"""Django's admin on the live server: rows made in one window are seen in another as they come."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser import admin_sources
from tests.browser.test_examples import browser
from tests.tutorial.project import LAYER, Project
from tests.tutorial.test_part_4 import HEADLESS, processes_in

__all__ = ["browser"]

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def site(tmp_path: Path) -> Project:
    project = Project.start(tmp_path)
    project.install("channels", "board")
    project.set(ASGI_APPLICATION="mysite.asgi.application", CHANNEL_LAYERS={"default": LAYER})
    project.edit_settings(
        "'NAME': BASE_DIR / 'db.sqlite3',\n",
        "'NAME': BASE_DIR / 'db.sqlite3',\n        'TEST': {'NAME': BASE_DIR / 'test.sqlite3'},\n",
    )
    for path, text in admin_sources.FILES.items():
        project.write(path, text)
    project.write("headless.py", HEADLESS)
    project.manage("makemigrations", "board")
    return project


@pytest.mark.timeout(240)
def test_rows_come_and_go_in_the_admin(site: Project, short_path: Path) -> None:
    # Chromium keeps a socket there, whose path may have 107 characters.
    environment = {"HOME": str(short_path), "TMPDIR": str(short_path), "SE_OFFLINE": "true"}
    output = site.manage("test", "board.tests", env=environment, patience_seconds=220)
    assert "Ran 3 tests" in output
    assert re.search(r"^OK$", output, re.MULTILINE), output
    assert processes_in(site.folder) == []
