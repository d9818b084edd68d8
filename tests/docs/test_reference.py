"""The reference pages are what the source says."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.tutorial import ROOT


def test_the_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "script/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"Run script/docs and commit.\n{done.stdout}{done.stderr}"
