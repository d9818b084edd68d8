"""How bindings are defined and registered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from channels.binding import Binding
from channels.binding.base import BindingMetaclass
from tests.processes import environment, run


def test_an_abstract_class_says_so() -> None:
    class Abstract(Binding):
        model = None

    assert Abstract in BindingMetaclass.binding_classes
    with pytest.raises(ValueError, match="Unclear has no model: set `model`, to None if"):

        class Unclear(Binding):
            fields = ["name"]


def test_the_fields_must_be_said() -> None:
    with pytest.raises(ValueError, match=r"Fieldless does not say .*'__all__'.*`exclude`"):

        class Fieldless(Binding):
            model = "auth.Group"


def test_a_model_that_does_not_exist_is_named() -> None:
    with pytest.raises(LookupError, match="NoSuchModel"):

        class Lost(Binding):
            model = "auth.NoSuchModel"
            fields = ["name"]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("group_names", (None,)),
        ("serialize", (None, "create")),
        ("encode", ("stream", {})),
        ("deserialize", (None,)),
        ("has_permission", (None, "create", None)),
        ("create", ({},)),
        ("update", (1, {})),
    ],
)
def test_what_a_protocol_must_define(method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(NotImplementedError, match=rf"Binding must implement {method}\(\)"):
        getattr(Binding(), method)(*arguments)


SITE = """\
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["channels", "django.contrib.contenttypes", "django.contrib.auth", "early"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "ROUTING": []}},
)
django.setup()

from channels.binding.base import BindingMetaclass
from early.models import EarlyBinding
from late import LateBinding

print(EarlyBinding.model_label, LateBinding.model_label)
"""
EARLY = """\
from django.contrib.auth.models import User
from channels.binding.websockets import WebsocketBinding


class EarlyBinding(WebsocketBinding):
    model = "auth.User"
    fields = ["username"]
"""


def test_bindings_are_registered_once_the_models_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "__init__.py").touch()
    (tmp_path / "early" / "models.py").write_text(EARLY)
    (tmp_path / "late.py").write_text(EARLY.replace("Early", "Late"))
    (tmp_path / "program.py").write_text(SITE)
    assert run("program.py", cwd=tmp_path) == "auth.user auth.user\n"


def test_a_site_without_bindings_loads_none_of_it() -> None:
    program = (
        "import sys, django; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['channels']); django.setup();"
        "print([name for name in sys.modules if name.startswith('channels.legacy')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
