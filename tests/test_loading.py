"""Objects named on a command line: which are found, and what is said of those that are not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import InvalidOption, StartupFailed
from channels.layers import InMemoryChannelLayer, LocalChannelLayer
from channels.legacy.interface.application import InterfaceServer
from channels.loading import interface_of, load_application
from tests.test_cli import APPLICATION


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module `pages` and a broken module."""
    (tmp_path / "pages.py").write_text(APPLICATION)
    (tmp_path / "broken.py").write_text("import does_not_exist_at_all\n")
    (tmp_path / "half.py").write_text("import pages\n\npages.missing_name\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in ("pages", "broken", "half"):
        sys.modules.pop(name, None)


class TestApplications:
    def test_an_application_is_imported_from_the_working_directory(self, folder: Path) -> None:
        assert callable(load_application("pages:application"))
        assert callable(load_application("pages:Site.inner"))

    async def test_the_two_steps_of_asgi_2_are_joined(self, folder: Path) -> None:
        application = load_application("pages:OfTwoSteps")
        sent = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message["type"])

        await application({"type": "http", "root_path": ""}, receive, send)
        assert sent == ["http.response.start", "http.response.body"]

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("pages", "expected module:attribute, as in mysite.asgi:application"),
            (":application", "expected module:attribute"),
            ("pages:", "expected module:attribute"),
            ("nowhere:application", "there is no module 'nowhere', neither installed nor in"),
            ("pages.deeper:application", "there is no module 'pages.deeper'"),
            ("pages:app", "has no attribute 'app'"),
            ("pages:Site.outer", "has no attribute 'outer'"),
            ("pages:wsgi", "name the one in asgi.py"),
            ("pages:number", "is a int, not an ASGI application"),
            ("pages:layer", "`channels interface pages:layer` serves it"),
        ],
    )
    def test_what_is_none_is_refused(self, folder: Path, path: str, said: str) -> None:
        with pytest.raises(InvalidOption, match=said):
            load_application(path)

    def test_an_error_inside_the_module_is_told_with_its_line(self, folder: Path) -> None:
        with pytest.raises(StartupFailed, match=r'broken\.py", line 1, in <module>(?s:.*)at_all'):
            load_application("broken:application")
        with pytest.raises(
            StartupFailed, match=r'half\.py", line 3, in <module>(?s:.*)missing_name'
        ):
            load_application("half:application")


class TestInterfaces:
    def test_a_layer_with_routing_has_workers_of_channels_1(self) -> None:
        layer = LocalChannelLayer()
        layer.routing = []
        assert isinstance(interface_of(layer, {}), InterfaceServer)

    def test_a_layer_of_one_process_is_refused(self) -> None:
        layer = InMemoryChannelLayer()
        layer.routing = []
        with pytest.raises(InvalidOption, match="stays inside one process, and no worker runs in"):
            interface_of(layer, {})
