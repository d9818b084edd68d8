"""Which code is a library's and which is the project's, told by its file."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Final

_PACKAGE: Final = str(Path(__file__).parent.parent)
_LIBRARIES: Final = (sysconfig.get_path("stdlib"), _PACKAGE, "<")


def is_library(path: str) -> bool:
    """True for a file of Python, of this package or of an installed one."""
    return path.startswith(_LIBRARIES) or "site-packages" in path or "dist-packages" in path
