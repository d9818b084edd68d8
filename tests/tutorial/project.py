"""A project in a temporary folder, grown as the tutorial's reader grows it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from django.core.management import call_command

from tests.processes import Child, run

#: The tutorial names `channels_redis.core.RedisChannelLayer` with a Redis on its usual port.
LAYER: Final[Mapping[str, Any]] = {"BACKEND": "channels.layers.InMemoryChannelLayer"}


class Project:
    """A Django project named `name` with a manage.py in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    @classmethod
    def start(cls, parent: Path, name: str = "mysite") -> Self:
        """`django-admin startproject`; Django's own command needs no process of its own."""
        (parent / name).mkdir()
        call_command("startproject", name, str(parent / name))
        return cls(parent / name, name)

    def copy(self, parent: Path) -> Self:
        """The same project in another folder."""
        shutil.copytree(self.folder, parent / self.name)
        return type(self)(parent / self.name, self.name)

    def manage(self, *words: str, env: Mapping[str, str] | None = None, **more: Any) -> str:
        """What `manage.py` with these words wrote; `more` as for `run`."""
        return run("manage.py", *words, cwd=self.folder, env=env, **more)

    def serve(self, *words: str, env: Mapping[str, str] | None = None) -> Child:
        """`manage.py runserver`, on a free port unless the words name one."""
        return Child(
            "manage.py", "runserver", *(words or ("0", "--noreload")), cwd=self.folder, env=env
        )

    def start_app(self, app: str) -> None:
        """`startapp`, then remove all but __init__.py and views.py."""
        (self.folder / app).mkdir()
        call_command("startapp", app, str(self.folder / app))
        for path in (self.folder / app).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in {"__init__.py", "views.py"}:
                path.unlink()

    def write(self, path: str, text: str) -> None:
        """Put a file into the project."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def install(self, *apps: str) -> None:
        """Add applications at the top of INSTALLED_APPS."""
        lines = "".join(f"    {app!r},\n" for app in apps)
        self.edit_settings("INSTALLED_APPS = [\n", f"INSTALLED_APPS = [\n{lines}")

    def set(self, **settings: Any) -> None:
        """Add settings at the bottom."""
        path = self.folder / self.name / "settings.py"
        lines = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
        path.write_text(path.read_text() + lines)

    def edit_settings(self, before: str, after: str) -> None:
        """Replace a piece of settings.py that must be there."""
        path = self.folder / self.name / "settings.py"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))
