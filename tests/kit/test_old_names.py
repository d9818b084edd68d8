"""Names of another release are loaded when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from channels.kit.old_names import old_names


def test_a_name_is_loaded_from_its_place() -> None:
    lookup = old_names("house", {"Fraction": "fractions"})
    assert lookup("Fraction").__module__ == "fractions"
    with pytest.raises(AttributeError, match="module 'house' has no attribute 'Door'"):
        lookup("Door")


def test_the_package_is_imported_without_django() -> None:
    code = (
        "import channels, channels.exceptions, sys; print({'django', 'asgiref'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert found.stdout.strip() == "set()"
