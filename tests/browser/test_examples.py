"""The examples' own tests, in a real browser, as their readers run them: manage.py test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSER = ("chromium", "chromedriver")

#: One browser at a time: on a busy machine a second one may end as it starts.
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(autouse=True)
def browser() -> None:
    lacking = [name for name in BROWSER if shutil.which(name) is None]
    if lacking:
        message = f"{' and '.join(lacking)} not found: script/test installs them as root."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("example", "least"), [("tutorial", 2), ("chat", 101)])
def test_manage_py_test(example: str, least: int, tmp_path: Path) -> None:
    # A copy: two runs at once must not share a test database.
    project = shutil.copytree(
        ROOT / "examples" / example,
        tmp_path / example,
        ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"),
    )
    # The project's own settings, not this suite's; and Selenium is to use what is installed.
    environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    environment |= {
        "PYTHONPATH": str(ROOT / "src"),
        "SE_OFFLINE": "true",
        "SE_AVOID_STATS": "true",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "manage.py", "test", "--no-input"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.search(r"^Ran (\d+) tests? in", done.stderr, re.M)
    assert ran, done.stderr
    assert int(ran[1]) >= least, "fewer tests than there are: were some not found?"
    assert re.search(r"^OK$", done.stderr, re.M), f"some were skipped:\n{done.stderr}"
