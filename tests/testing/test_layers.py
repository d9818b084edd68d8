"""The suite in the hands of a third party: outside this repository, on the layer of the docs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.tutorial import BLOCK, ROOT

PAGE = ROOT / "docs" / "topics" / "testing.md"
#: The case that fails -> a piece of the page's layer, and what is wrong in its place.
FAULTS = {
    "test_who_has_left_gets_nothing": ("self.groups[group].pop(channel, None)", "pass"),
    "test_full_at_one_over_capacity": (
        ">= self.get_capacity(channel)",
        "> self.get_capacity(channel)",
    ),
    "test_unread_messages_expire": ("waiting and waiting[0][0] <= time.monotonic()", "False"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's files of the layer, in a folder of their own."""
    written = {found["path"]: found["code"] for found in BLOCK.finditer(PAGE.read_text())}
    for path in ("toylayer.py", "test_toylayer.py"):
        (tmp_path / path).write_text(written[path])
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """pytest as it runs there: what is installed, and no setting of this repository's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PY", "DJANGO"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:randomly", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_layer_of_ones_own_passes_the_suite(folder: Path) -> None:
    code, output = run(folder, "-rs")
    assert code == 0, output
    passed = re.search(r"(\d+) passed", output)
    assert passed, output
    assert int(passed[1]) > 40
    assert "the layer has not: node" in output
    assert "failed" not in output


def test_it_finds_what_is_wrong(folder: Path) -> None:
    layer, cases = (folder / name for name in ("toylayer.py", "test_toylayer.py"))
    source, files = layer.read_text(), []
    for number, (right, wrong) in enumerate(FAULTS.values()):
        assert right in source
        (folder / f"faulty{number}.py").write_text(source.replace(right, wrong))
        files.append(folder / f"test_{number}.py")
        files[-1].write_text(cases.read_text().replace("from toylayer", f"from faulty{number}"))
    code, output = run(folder, "-k", " or ".join(FAULTS), *map(str, files))
    assert code == 1, output
    failed = re.findall(r"^FAILED test_(\d)\.py::TestToyLayer::(\w+)", output, re.MULTILINE)
    assert sorted(failed) == [(str(number), case) for number, case in enumerate(FAULTS)], output
