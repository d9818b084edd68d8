"""Part 4: `manage.py test` drives a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tutorial import sources
from tests.tutorial.project import Project

pytestmark = pytest.mark.xdist_group("browser")

#: What a browser needs that runs without a screen, as any user, and talks to nobody.
HEADLESS = """\
from tempfile import mkdtemp

from selenium.webdriver import ChromeOptions

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
)


def options():
    chosen = ChromeOptions()
    for flag in (*FLAGS.split(), "--user-data-dir=" + mkdtemp()):
        chosen.add_argument(flag)
    return chosen
"""

IN_CI = bool(os.environ.get("CI"))


@pytest.fixture
def part_4(part_3: Project) -> Project:
    if not IN_CI and not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("needs chromium and chromedriver")
    part_3.write("headless.py", HEADLESS)
    tests = sources.TESTS.replace("webdriver.Chrome()", "webdriver.Chrome(options=options())")
    part_3.write("chat/tests.py", "from headless import options\n" + tests)
    return part_3


def test_the_database_in_memory_is_refused_with_what_to_do(part_4: Project) -> None:
    with pytest.raises(AssertionError) as failed:
        part_4.manage("test", "chat.tests")
    assert 'DATABASES["default"]["TEST"] = {"NAME": ' in str(failed.value)


@pytest.mark.timeout(120)
def test_the_tests_pass(part_4: Project, short_path: Path) -> None:
    part_4.edit_settings(
        "'NAME': BASE_DIR / 'db.sqlite3',\n",
        "'NAME': BASE_DIR / 'db.sqlite3',\n        'TEST': {'NAME': BASE_DIR / 'test.sqlite3'},\n",
    )
    # Chromium keeps a socket there, whose path may have 107 characters.
    browser = {"HOME": str(short_path), "TMPDIR": str(short_path)}
    output = part_4.manage("test", "chat.tests", env=browser)
    assert "Ran 2 tests" in output
    assert "\nOK\n" in output
    assert not processes_in(part_4.folder), "The live server outlived its tests."


def processes_in(folder: Path) -> list[str]:
    """The processes whose working directory is `folder`."""
    listed = subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True)
    found = []
    for pid in listed.stdout.split():
        try:
            if Path(f"/proc/{pid}/cwd").readlink() == folder:
                found.append(pid)
        except OSError:
            continue
    return found
