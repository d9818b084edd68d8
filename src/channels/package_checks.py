"""What Channels 1 asked of layers that were packages of their own; they are part of this one."""

from __future__ import annotations

#: Package -> its least version.
required_versions: dict[str, str] = {}


def check_all() -> None:
    """Does nothing; here for programs that call it."""
