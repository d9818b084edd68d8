"""Names that a module has from another release's API, loaded when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def old_names(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module that shall know more names than it defines.

    Args:
        module: The module's `__name__`.
        places: Name -> the module that defines it; imported by name, so that nothing that stands
            below that module depends on it.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - what Python calls
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(places[name]), name)

    return __getattr__
