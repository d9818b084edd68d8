"""Edge and worker talk over a Unix socket, and through the layer: most holds for both."""

from __future__ import annotations

import pytest

from tests.decoupled.house import QUICK


@pytest.fixture(params=["auto", "layer"])
def link(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How edge and workers of a house talk."""
    found: str = request.param
    monkeypatch.setitem(QUICK, "link", found)
    return found
