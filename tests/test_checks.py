"""System checks: each fault is named with a hint, and a sound project hears nothing."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from http import cookies
from importlib import metadata
from typing import Any

import pytest
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.core.management import load_command_class

import channels
from channels import checks
from channels.layers.base import BaseChannelLayer
from tests.processes import SRC, run

ROOT = SRC.parent


class ThirdPartyLayer(BaseChannelLayer):
    """A layer as other packages bring it; building one would be noticed."""

    def __init__(self, host: str, port: int = 1) -> None:
        raise AssertionError("a check must not build it")


class InMemoryChannelLayer(BaseChannelLayer):
    """Stands for every layer that is a subclass of the in-memory one."""


THIRD_PARTY = f"{__name__}.ThirdPartyLayer"
IN_MEMORY = f"{__name__}.InMemoryChannelLayer"


def ids(messages: list[CheckMessage]) -> list[str | None]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(checks.PROCESSES, raising=False)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("site_of_the_check")
    module.application = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_checks_are_registered() -> None:
    registered: Any = django_checks.registry.registry.get_checks(include_deployment_checks=True)
    assert {
        "check_cookie_parser",
        "check_application",
        "check_runserver",
        "check_layers",
        "check_distributions",
    } <= {check.__name__ for check in registered}


def test_an_installed_application_is_checked() -> None:
    """In a fresh process: nothing but INSTALLED_APPS names the checks there."""
    said = run("-m", "django", "check", cwd=ROOT, env={"DJANGO_SETTINGS_MODULE": "tests.settings"})
    assert "(channels.W001) ASGI_APPLICATION is not set" in said


@pytest.mark.parametrize(
    ("version", "is_mended", "expected"),
    [
        ((3, 11, 9), False, ["channels.W010"]),
        ((3, 11, 2), True, []),
        ((3, 14, 0), False, []),
    ],
)
def test_a_python_whose_cookie_parser_takes_quadratic_time(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, ...],
    is_mended: bool,
    expected: list[str],
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.delattr(cookies, "_unquote_sub", raising=False)
    if is_mended:
        monkeypatch.setattr(cookies, "_unquote_sub", None, raising=False)
    assert ids(checks.check_cookie_parser()) == expected


# ASGI_APPLICATION --------------------------------------------------------------


def test_an_application(settings: Any, site: types.ModuleType) -> None:
    settings.ASGI_APPLICATION = f"{site.__name__}.application"
    assert checks.check_application() == []


@pytest.mark.parametrize("value", [None, ""])
def test_no_application(settings: Any, value: str | None) -> None:
    settings.ASGI_APPLICATION = value
    assert ids(checks.check_application()) == ["channels.W001"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no.such.module.application", "No module named 'no'"),
        ("site_of_the_check.missing", "Cannot find 'missing'"),
        ("application", "Cannot find ASGI_APPLICATION setting"),
    ],
)
def test_an_application_that_cannot_be_had(
    settings: Any, site: types.ModuleType, value: str, said: str
) -> None:
    settings.ASGI_APPLICATION = value
    messages = checks.check_application()
    assert ids(messages) == ["channels.W002"]
    assert said in messages[0].msg


def test_an_application_whose_module_raises(
    settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_site_of_the_check.py").write_text("raise RuntimeError('no database')")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.ASGI_APPLICATION = "broken_site_of_the_check.application"
    (message,) = checks.check_application()
    assert message.id == "channels.W002"
    assert "RuntimeError('no database')" in message.msg


# runserver ---------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, type], None]:
    """Says whose `runserver` comes first, and which class that is."""

    class Ours:
        pass

    module = types.ModuleType("channels.management.commands.runserver")
    module.Command = Ours  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def first(owner: str, command: type) -> None:
        kind = type("Command", (Ours,), {}) if command is object else command
        monkeypatch.setattr(checks, "get_commands", lambda: {"runserver": owner})
        monkeypatch.setattr(checks, "load_command_class", lambda *names: kind())

    return first


def test_runserver_is_ours_or_builds_on_ours(commands: Callable[[str, type], None]) -> None:
    commands("whitenoise.runserver_nostatic", object)
    assert checks.check_runserver() == []


def test_runserver_of_another_application(commands: Callable[[str, type], None]) -> None:
    staticfiles = type(load_command_class("django.contrib.staticfiles", "runserver"))
    commands("django.contrib.staticfiles", staticfiles)
    (message,) = checks.check_runserver()
    assert message.id == "channels.W003"
    assert message.hint == 'List "channels" before "django.contrib.staticfiles" in INSTALLED_APPS.'


# CHANNEL_LAYERS ----------------------------------------------------------------


OURS = "channels.layers.InMemoryChannelLayer"


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"default": {"BACKEND": IN_MEMORY}},
        {"default": {"BACKEND": OURS, "CONFIG": {"capacity": 10}, "TEST_CONFIG": {}}},
        {"default": {"BACKEND": "asgiref.inmemory.ChannelLayer"}},
    ],
)
def test_sound_layers(settings: Any, value: Any) -> None:
    settings.CHANNEL_LAYERS = value
    assert checks.check_layers() == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1], "channels.E001"),
        ("default", "channels.E001"),
        ({"default": IN_MEMORY}, "channels.E001"),
        ({"default": {}}, "channels.E002"),
        ({"default": {"BACKEND": None}}, "channels.E002"),
        ({"default": {"BACKEND": BaseChannelLayer}}, "channels.E002"),
        ({"default": {"BACKEND": "InMemoryChannelLayer"}}, "channels.E003"),
        ({"default": {"BACKEND": "no.such.Layer"}}, "channels.E003"),
        ({"default": {"BACKEND": f"{__name__}.NoSuchLayer"}}, "channels.E003"),
        ({"default": {"BACKEND": IN_MEMORY, "CONFIG": [1]}}, "channels.E004"),
        ({"default": {"BACKEND": IN_MEMORY, "CONFIG": {"colour": 1}}}, "channels.E004"),
        ({"default": {"BACKEND": IN_MEMORY, "TEST_CONFIG": {"colour": 1}}}, "channels.E004"),
        ({"other": {"BACKEND": OURS}, "third": {"BACKEND": OURS}}, "channels.W012"),
        ({"default": {"BACKEND": OURS, "CONFIG": {"capacity": -1}}}, "channels.E004"),
        ({"default": {"BACKEND": OURS, "CONFIG": {"capacity": "many"}}}, "channels.E004"),
        ({"default": {"BACKEND": THIRD_PARTY}}, "channels.E004"),
        ({"default": {"BACKEND": THIRD_PARTY, "CONFIG": {"host": "a", "x": 1}}}, "channels.E004"),
        ({"default": {"BACKEND": IN_MEMORY, "capacity": 10}}, "channels.W005"),
        ({"default": {"BACKEND": IN_MEMORY, "ROUTING": "no.such.routing"}}, "channels.E005"),
        ({"default": {"BACKEND": IN_MEMORY, "ROUTING": f"{__name__}.OURS"}}, "channels.E005"),
        ({"default": {"BACKEND": IN_MEMORY, "ROUTING": [print]}}, "channels.E005"),
        ({"default": {"BACKEND": IN_MEMORY, "ROUTING": {"jobs": "no.such.job"}}}, "channels.E005"),
    ],
)
def test_faulty_layers(settings: Any, value: Any, expected: str) -> None:
    settings.CHANNEL_LAYERS = value
    assert ids(checks.check_layers()) == [expected]


def test_a_faulty_routing_is_named(settings: Any) -> None:
    entry = {"BACKEND": IN_MEMORY, "ROUTING": "no.such.routing"}
    settings.CHANNEL_LAYERS = {"default": entry}
    (message,) = checks.check_layers()
    assert message.msg.startswith(
        "The ROUTING of CHANNEL_LAYERS['default'] cannot be had: Cannot import channel routing "
        "'no.such.routing'"
    )


def test_a_site_of_channels_1_needs_no_application(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY, "ROUTING": {"jobs": print}}}
    assert checks.check_application() == checks.check_layers() == []
    settings.CHANNEL_LAYERS = {"other": {"BACKEND": IN_MEMORY, "ROUTING": []}}
    assert ids(checks.check_application()) == ["channels.W001"]


def test_layers_without_a_default_are_named(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"chat": {"BACKEND": OURS}}
    (message,) = checks.check_layers()
    assert message.msg.startswith("CHANNEL_LAYERS has no 'default': found 'chat'.")


def test_a_faulty_test_config_is_named(settings: Any) -> None:
    entry = {"BACKEND": OURS, "CONFIG": {"capacity": 1}, "TEST_CONFIG": {"capacity": 0}}
    settings.CHANNEL_LAYERS = {"default": entry}
    (message,) = checks.check_layers()
    assert f"{OURS} does not take the TEST_CONFIG of CHANNEL_LAYERS['default']" in message.msg


def test_a_third_party_layer_is_not_built(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": THIRD_PARTY, "CONFIG": {"host": "a"}}}
    assert checks.check_layers() == []


def test_a_layer_of_ours_is_built_and_its_own_words_are_passed_on(settings: Any) -> None:
    config = {"colour": 1}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels.layers.base.BaseChannelLayer", "CONFIG": config}
    }
    (message,) = checks.check_layers()
    assert message.id == "channels.E004"
    assert "colour" in message.msg


def test_every_layer_is_looked_at(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {}, "other": {"BACKEND": "no.such.Layer"}}
    messages = checks.check_layers()
    assert ids(messages) == ["channels.E002", "channels.E003"]
    assert "CHANNEL_LAYERS['other']" in messages[1].msg


@pytest.mark.parametrize(
    ("count", "warned"), [("", False), ("1", False), ("2", True), ("many", False)]
)
@pytest.mark.parametrize("backend", [IN_MEMORY, OURS])
def test_an_in_memory_layer_and_several_processes(
    settings: Any, monkeypatch: pytest.MonkeyPatch, backend: str, count: str, warned: bool
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    monkeypatch.setenv(checks.PROCESSES, count)
    assert ids(checks.check_layers()) == (["channels.W004"] if warned else [])


def test_an_in_memory_layer_and_a_worker(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "runworker", "thumbnails"])
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY}}
    assert ids(checks.check_layers()) == ["channels.W004"]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": THIRD_PARTY, "CONFIG": {"host": "a"}}}
    assert checks.check_layers() == []


def test_options_that_the_in_memory_layer_ignores(settings: Any) -> None:
    config = {"capcity": 5, "hosts": ["redis://h"], "expiry": 3}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": config}
    }
    (found,) = checks.check_layers()
    assert found.id == "channels.W011"
    assert "ignores capcity, hosts in CONFIG" in found.msg
    assert "capacity" in (found.hint or "")


# Distributions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (None, []),
        (["k" * 32, b"k" * 32], []),
        (["k" * 31], ["channels.W008"]),
        (("k" * 32, b"k"), ["channels.W008"]),
        ([], ["channels.W009"]),
        ([""], ["channels.E004"]),
        ("k" * 32, ["channels.E004"]),
    ],
    ids=str,
)
def test_keys_that_seal_little(settings: Any, keys: Any, found: list[str]) -> None:
    config = {"symmetric_encryption_keys": keys}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": OURS, "CONFIG": config}}
    assert ids(checks.check_layers()) == found


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"channels": channels.__version__}, []),
        ({}, []),
        ({"channels": channels.__version__, "daphne": "4.2.1"}, ["daphne 4.2.1"]),
        (
            {"channels": "4.3.2", "channels-redis": "4.3.0"},
            ["channels-redis 4.3.0", "channels 4.3.2"],
        ),
    ],
)
def test_distributions_that_lie_over_ours(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], found: list[str]
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    messages = checks.check_distributions()
    assert ids(messages) == ["channels.W006"] * len(found)
    assert all(repr(name) in message.msg for name, message in zip(found, messages, strict=True))


def test_nothing_lies_over_this_installation() -> None:
    assert checks.check_distributions() == []
