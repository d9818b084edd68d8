"""The log of `runserver` and `runworker`: `--log-format`, as `channels serve` has it."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from channels.kit.options import add_arguments, from_environment, from_mapping, options_of
from channels.server.log_outputs import LOG_FORMAT
from channels.server.reporting import Reporting


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--log-format`."""
    others = {declared.name for declared in options_of(Reporting)} - {"log_format"}
    add_arguments(parser, Reporting, without=others)


def set_up_log(options: Mapping[str, Any], verbosity: int) -> Reporting:
    """Send log records to the standard error, in the form that flag or environment asks for.

    Raises:
        InvalidOption: If an environment variable for the log is out of bounds.
    """
    given = from_environment(Reporting, os.environ)
    reporting = from_mapping(Reporting, {**given, **options, "verbosity": verbosity})
    if reporting.log_format != LOG_FORMAT and not settings.LOGGING:
        _remove_django_handlers()
    reporting.set_up()
    return reporting


def _remove_django_handlers() -> None:
    """Let Django's loggers write by the root's handler alone, as long as LOGGING is empty.

    Django's own handlers write plain text where DEBUG is on, and `django.setup()`, which
    `get_asgi_application()` calls again, would bring them back.
    """
    settings.LOGGING_CONFIG = None
    for name in ("django", "django.server"):
        logger = logging.getLogger(name)
        logger.propagate = True
        for handler in [*logger.handlers]:
            if isinstance(handler, logging.StreamHandler):
                logger.removeHandler(handler)
