"""The application "daphne" and the order that it must be listed in."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.test import override_settings

import channels
import daphne
from daphne.apps import check_daphne_installed

STATICFILES = "django.contrib.staticfiles"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (["daphne", STATICFILES], []),
        (["daphne", "channels", STATICFILES], []),
        ([STATICFILES, "daphne"], ["daphne.E001"]),
        ([STATICFILES], []),
        (["daphne"], []),
    ],
)
def test_the_check_asks_for_a_place_before_staticfiles(
    installed: list[str], expected: list[str]
) -> None:
    with override_settings(INSTALLED_APPS=installed):
        assert [message.id for message in check_daphne_installed()] == expected


def test_the_check_is_registered_under_the_label_daphne() -> None:
    others = ["django.contrib.auth", "django.contrib.contenttypes"]
    with override_settings(INSTALLED_APPS=[STATICFILES, "daphne", *others]):
        assert apps.get_app_config("daphne").label == "daphne"
        assert "daphne.E001" in {message.id for message in run_checks()}


def test_version() -> None:
    assert daphne.__version__ == channels.__version__
