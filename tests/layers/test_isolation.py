"""Test runs do not reach the running site: every one has layers of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from channels.layers import BaseChannelLayer, ChannelLayerManager, LocalChannelLayer
from channels.layers.isolation import VARIABLE, join_test_run, own_prefix
from tests.processes import PATIENCE_SECONDS, environment

XDIST = ("PYTEST_XDIST_TESTRUNUID", "PYTEST_XDIST_WORKER")
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["channels", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": {"directory": %r}},
}
"""
#: Imported before the test environment is set up.
MODELS = """
from channels.layers import get_channel_layer
layer = get_channel_layer()
"""
TESTS = """
import os, subprocess, sys
from pathlib import Path
from channels.layers import get_channel_layer
from django.test import TestCase
from shop.models import layer

CHILD = '''
import django
django.setup()
from shop.models import layer
layer.sync.send("jobs", {"type": "child"})
'''

class FirstTests(TestCase):
    mode = "w"

    def test_sends(self):
        subprocess.run([sys.executable, "-c", CHILD], check=True)
        self.assertEqual(layer.sync.receive("jobs", 20), {"type": "child"})
        self.assertIs(layer, get_channel_layer())
        layer.sync.send("jobs", {"type": "test"})
        layer.sync.group_send("room", {"type": "test"})
        Path("places", type(self).__name__ + str(os.getpid())).write_text(
            layer.node.transport.place.directory.name
        )
        if meeting := os.environ.get("MEETING"):
            # Neither of the two ends before the other runs, so they run in two processes.
            open(meeting, self.mode).close()
"""
SECOND = """
class SecondTests(FirstTests):
    mode = "r"
"""
CUSTOM_RUNNER = """
import django, unittest
django.setup()
from django.test.runner import DiscoverRunner
raise SystemExit(DiscoverRunner(interactive=False).run_tests([]))
"""


def run(folder: Path, *words: str, tests: str = TESTS, **variables: str) -> list[str]:
    """Run the tests of a project; returns the places of its layer, each once per test."""
    (folder / "shop").mkdir()
    (folder / "places").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "models.py").write_text(MODELS)
    (folder / "shop" / "tests.py").write_text(tests)
    (folder / "project.py").write_text(SETTINGS % str(folder))
    env = environment(DJANGO_SETTINGS_MODULE="project", **variables)
    env["PYTHONPATH"] += os.pathsep + str(folder)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 3,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [path.read_text() for path in (folder / "places").iterdir()]


#: Projects whose tests start processes in turn, on a machine that has other things to do.
takes_its_time = pytest.mark.timeout(4 * PATIENCE_SECONDS)


@takes_its_time
@pytest.mark.parametrize(
    "words",
    [
        ("-m", "django", "test"),
        ("-m", "pytest", "-q", "shop/tests.py"),
        ("-c", CUSTOM_RUNNER),
    ],
    ids=["django", "pytest", "custom runner"],
)
async def test_a_test_run_does_not_reach_the_running_site(
    short_path: Path, words: tuple[str, ...]
) -> None:
    site = LocalChannelLayer(directory=short_path)
    try:
        member = await site.new_channel()
        await site.group_add("room", member)
        places = run(short_path, *words)
        assert len(places) == 1
        await site.send("jobs", {"type": "site"})
        await site.group_send("room", {"type": "site"})
        assert await site.receive("jobs") == {"type": "site"}
        assert await site.receive(member) == {"type": "site"}
    finally:
        await site.close()


@takes_its_time
def test_parallel_workers_of_django_have_a_layer_each(short_path: Path) -> None:
    os.mkfifo(short_path / "meeting")
    words = ("-m", "django", "test", "--parallel", "2")
    places = run(short_path, *words, tests=TESTS + SECOND, MEETING=str(short_path / "meeting"))
    assert len(set(places)) == len(places) == 2


@takes_its_time
def test_workers_of_xdist_have_a_layer_each(short_path: Path) -> None:
    words = ("-m", "pytest", "-q", "-n", "2", "--dist", "each", "shop/tests.py")
    places = run(short_path, *words)
    assert len(set(places)) == len(places) == 2


class Prefixed(BaseChannelLayer):
    def __init__(self, prefix: str = "asgi", hosts: Any = None) -> None:
        super().__init__()
        self.prefix = prefix
        self.hosts = hosts


class HandsUp(Prefixed):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)


class Fixed(Prefixed):
    def __init__(self) -> None:
        super().__init__("site")


@pytest.fixture
def named_run(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(VARIABLE, "a-run")
    return join_test_run()


def made(kind: type[BaseChannelLayer], **entry: Any) -> Any:
    entry["BACKEND"] = f"{__name__}.{kind.__name__}"
    return ChannelLayerManager(lambda: {"default": entry})["default"]


@pytest.mark.parametrize("kind", [Prefixed, HandsUp])
def test_the_prefix_is_the_runs_own(named_run: str, kind: type[BaseChannelLayer]) -> None:
    assert made(kind).prefix == own_prefix(named_run, "asgi")
    assert made(kind, CONFIG={"prefix": "x"}).prefix == own_prefix(named_run, "x")


def test_the_prefix_is_one_that_every_layer_takes(named_run: str) -> None:
    assert len(own_prefix(named_run, "x" * 99)) == 21


def test_a_layer_that_takes_no_prefix_is_made_as_configured(named_run: str) -> None:
    assert made(Fixed).prefix == "site"


def test_test_config_takes_the_place_of_config(named_run: str) -> None:
    layer = made(Prefixed, CONFIG={"hosts": "live"}, TEST_CONFIG={"hosts": "other"})
    assert layer.hosts == "other"
    assert layer.prefix == own_prefix(named_run, "asgi")


def test_a_prefix_in_test_config_is_taken_as_it_stands(named_run: str) -> None:
    assert made(Prefixed, TEST_CONFIG={"prefix": "mine"}).prefix == "mine"


def test_outside_of_a_test_run_config_is_taken_as_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("channels.layers.registry.join_test_run", lambda: "")
    layer = made(Prefixed, CONFIG={"prefix": "live"}, TEST_CONFIG={"prefix": "other"})
    assert layer.prefix == "live"


def test_a_layer_that_was_set_is_left_alone_when_a_run_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = ChannelLayerManager(lambda: {"default": {"BACKEND": f"{__name__}.Prefixed"}})
    mine = Prefixed("mine")
    layers.set("default", mine)
    monkeypatch.setenv(VARIABLE, "another-run")
    assert layers["default"] is mine
    assert mine.prefix == "mine"


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["/site/manage.py", "test", "shop"], True),
        (["/site/manage.py", "runserver"], False),
        (["/bin/gunicorn", "test"], False),
    ],
)
def test_what_begins_a_run(monkeypatch: pytest.MonkeyPatch, words: list[str], begins: bool) -> None:
    monkeypatch.setenv(VARIABLE, "")
    for name in XDIST:
        monkeypatch.delenv(name, raising=False)
    for name in ("pytest_django", "django.test.utils"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", words)
    assert bool(join_test_run()) is begins
    assert bool(os.environ[VARIABLE]) is begins


def test_a_sites_locmem_mail_is_no_test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delitem(sys.modules, "pytest_django")
    monkeypatch.setitem(sys.modules, "django.test.utils", SimpleNamespace(_TestState=object))
    assert join_test_run() == ""
