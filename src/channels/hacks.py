"""What Channels 1 and 2 changed in Django itself; nothing today, for Django needs no change."""

from __future__ import annotations


def monkeypatch_django() -> None:
    """Does nothing; here for application configurations that call it."""
