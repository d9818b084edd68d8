"""The project's code that cannot be imported: the lines that are shown of it, and the file."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.exceptions import InvalidOption, StartupFailed
from channels.import_failure import importing
from channels.loading import load_object

ROUTED = """\
from channels.consumer import AsyncConsumer
from channels.routing import URLRouter
from django.urls import path


class Chat(AsyncConsumer):
    pass


routes = [path("chat/", Chat.as_asgi)]
application = URLRouter(routes)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, from which modules are imported: `site_asgi` imports `site_part`."""
    (tmp_path / "site_asgi.py").write_text("import site_part\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("site_asgi", "site_part"):
        sys.modules.pop(name, None)


def failure(folder: Path, text: str) -> StartupFailed:
    """What is raised where `site_part` has this text."""
    (folder / "site_part.py").write_text(text)
    with pytest.raises(StartupFailed) as raised:
        load_object("site_asgi:application")
    return raised.value


def test_a_traceback_has_the_projects_lines_alone(folder: Path) -> None:
    error = failure(folder, "import json\n\njson.laods('{}')\n")
    first, second, *lines, last = str(error).splitlines()
    assert first == "importing site_asgi:application failed:"
    assert second == "Traceback (most recent call last):"
    assert [line for line in lines if line.startswith("  File ")] == [
        f'  File "{folder}/site_asgi.py", line 1, in <module>',
        f'  File "{folder}/site_part.py", line 3, in <module>',
    ]
    assert last == "AttributeError: module 'json' has no attribute 'laods'. Did you mean: 'loads'?"
    assert error.filename == str(folder / "site_part.py")


def test_what_a_library_did_below_is_shown(folder: Path) -> None:
    error = failure(folder, "import json\n\njson.loads('{')\n")
    files = [line for line in str(error).splitlines() if line.startswith("  File ")]
    assert "site_asgi.py" in files[0]
    assert "site_part.py" in files[1]
    assert all("json" in line for line in files[2:])
    assert files[2:]
    assert error.filename == str(folder / "site_part.py")


def test_a_syntax_error_is_of_the_file_that_has_it(folder: Path) -> None:
    error = failure(folder, "routes = [\n")
    assert str(error).endswith("SyntaxError: '[' was never closed")
    assert "importlib" not in str(error)
    assert error.filename == str(folder / "site_part.py")


def test_what_django_or_we_refuse_is_one_line_with_its_place(folder: Path) -> None:
    error = failure(folder, ROUTED)
    assert str(error) == (
        "The route 'chat/': Chat.as_asgi is not called: write Chat.as_asgi(). "
        "(site_part.py, line 11)"
    )
    assert error.filename == str(folder / "site_part.py")


def test_the_cause_is_shown_where_the_project_has_it(folder: Path) -> None:
    error = failure(
        folder,
        "from django.core.exceptions import ImproperlyConfigured\n"
        "try:\n    import not_there_at_all\n"
        "except ImportError as error:\n    raise ImproperlyConfigured('no') from error\n",
    )
    assert str(error).endswith("ModuleNotFoundError: No module named 'not_there_at_all'")


def test_models_before_the_apps_are_loaded_come_with_what_to_do(folder: Path) -> None:
    error = failure(
        folder,
        "from django.core.exceptions import AppRegistryNotReady\n"
        'raise AppRegistryNotReady("Apps aren\'t loaded yet.")\n',
    )
    assert str(error).endswith(
        "Call get_asgi_application() before the imports of code that uses models."
    )


def test_the_error_keeps_its_whole_traceback(folder: Path) -> None:
    cause = failure(folder, "1 / 0\n").__cause__
    assert isinstance(cause, ZeroDivisionError)
    names = [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
    assert "import_module" in names


def test_a_wrong_option_is_told_as_such() -> None:
    with pytest.raises(InvalidOption, match="the path"), importing("x"):
        raise InvalidOption("the path is wrong")
