"""The name that application configurations of Channels 2 call in their `ready`."""

from __future__ import annotations

from django.core.handlers.base import BaseHandler
from django.http import HttpRequest

from channels.hacks import monkeypatch_django


def test_django_stays_as_it_is() -> None:
    before = [dict(vars(kind)) for kind in (BaseHandler, HttpRequest)]
    monkeypatch_django()
    assert [dict(vars(kind)) for kind in (BaseHandler, HttpRequest)] == before
