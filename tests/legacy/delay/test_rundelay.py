"""`manage.py rundelay`, a process of its own."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.legacy.conftest import MakeSite
from tests.processes import Child, run

SETTINGS = """\
SECRET_KEY = "x"
INSTALLED_APPS = ["channels", "channels.delay"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{path}/db.sqlite3"}}}}
CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "channels.layers.LocalChannelLayer",
        "CONFIG": {{"prefix": "{prefix}"}},
        "ROUTING": [],
    }},
}}
USE_TZ = True
"""
SEND = """\
import django

django.setup()
from channels import Channel, channel_layers

Channel("asgi.delay").send({"channel": "nobody", "delay": 1})
Channel("asgi.delay").send({"channel": "reminders", "content": {"number": 3}, "delay": 50})
print(channel_layers["default"].receive(["reminders"], block=True, timeout=20.0))
"""


def test_a_message_comes_back_from_the_process_when_it_is_due(
    tmp_path: Path, short_path: Path
) -> None:
    (tmp_path / "site_settings.py").write_text(
        SETTINGS.format(path=tmp_path, prefix=short_path.name)
    )
    (tmp_path / "send.py").write_text(SEND)
    env = {"DJANGO_SETTINGS_MODULE": "site_settings"}
    run("-m", "django", "migrate", cwd=tmp_path, env=env)
    words = ("-m", "django", "rundelay", "--sleep", "0.05", "-v", "2")
    with Child(*words, cwd=tmp_path, env=env) as worker:
        worker.wait_for("Listening on asgi.delay")
        assert run("send.py", cwd=tmp_path, env=env) == "('reminders', {'number': 3})\n"
        worker.wait_for("A delayed message is dropped: it has no content")
        assert worker.stop(signal.SIGTERM) == 0


def test_a_layer_of_one_process_is_refused(site: MakeSite) -> None:
    site()
    with pytest.raises(CommandError, match="in-memory channel layer does not reach other"):
        call_command("rundelay")


def test_an_unknown_layer_is_refused(site: MakeSite) -> None:
    site()
    with pytest.raises(CommandError, match="--layer other: CHANNEL_LAYERS has no such alias"):
        call_command("rundelay", layer="other")


def test_a_layer_without_routing_is_refused(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with pytest.raises(CommandError, match="No ROUTING specified"):
        call_command("rundelay")
