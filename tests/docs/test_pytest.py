"""The page about testing: what it says of pytest, done in the tutorial's project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.tutorial import ROOT

BLOCK = re.compile(
    r"^```(?:ini|python)\n# (?P<file>pytest\.ini|chat/\w+\.py)\n(?P<text>.*?)^```$", re.M | re.S
)


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    project = tmp_path / "site"
    shutil.copytree(ROOT / "examples/tutorial", project)
    page = (ROOT / "docs/topics/testing.md").read_text()
    files = {found["file"]: found["text"] for found in BLOCK.finditer(page)}
    assert sorted(files) == ["chat/test_rooms.py", "pytest.ini"]
    for name, text in files.items():
        (project / name).write_text(text)
    # Those of the run that this test is part of.
    foreign = ("DJANGO_", "PYTEST_", "CHANNELS_")
    environment = {name: it for name, it in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "chat/test_rooms.py"],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
