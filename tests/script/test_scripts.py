"""The scripts are what the README says they are."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    [path for path in (ROOT / "script").iterdir() if path.suffix == "" and path.is_file()]
    + [ROOT / ".ci" / "run"]
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_stops_at_errors_and_says_what_it_is(script: Path) -> None:
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert re.match(r"#!/bin/(sh|bash)\n# \w", text)
    assert re.search(r"^set -eu", text, re.M)
    shell = text.splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=20)


def test_nothing_to_install_needs_no_rights() -> None:
    subprocess.run([ROOT / "script" / "packages"], check=True, timeout=20)


def test_what_may_not_be_installed_is_named(tmp_path: Path) -> None:
    for name in ("id", "apt-get"):
        stand_in = tmp_path / name
        stand_in.write_text("#!/bin/sh\necho 1000\n")
        stand_in.chmod(0o755)
    done = subprocess.run(
        [ROOT / "script" / "packages", "chromium", "gcc"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends chromium gcc" in done.stderr


def test_continuous_integration_runs_the_readmes_commands() -> None:
    steps = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    for command in ("script/check", "script/test"):
        assert re.search(rf"^\s*{command}\b", steps, re.M)
        assert command in readme
    named = set(re.findall(r"\bscript/([a-z]+)\b", readme))
    assert named <= {path.name for path in SCRIPTS}
