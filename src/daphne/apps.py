"""The Django application `"daphne"`: harmless beside `"channels"`, and enough without it."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register

STATICFILES = "django.contrib.staticfiles"


class DaphneConfig(AppConfig):
    """Brings `runserver` for projects that list only "daphne"."""

    name = "daphne"
    verbose_name = "Daphne"

    def ready(self) -> None:
        register(check_daphne_installed)


def check_daphne_installed(**_: Any) -> list[CheckMessage]:
    """daphne.E001: the first application that has a `runserver` brings it."""
    names = [config.name for config in apps.get_app_configs()]
    if not {"daphne", STATICFILES} <= set(names):
        return []
    if names.index("daphne") < names.index(STATICFILES):
        return []
    return [
        Error(
            f"Daphne must be listed before {STATICFILES} in INSTALLED_APPS.",
            hint="Otherwise runserver is the one of staticfiles, which serves no WebSockets.",
            id="daphne.E001",
        )
    ]
