"""`manage.py rundelay`: send delayed messages when they are due."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import add_arguments, from_mapping
from channels.legacy.asgi import channel_layers
from channels.legacy.delay.worker import DelayOptions, Worker
from channels.legacy.log import setup_logger


class Command(BaseCommand):
    """Keeps the messages of the channel asgi.delay in the database, and sends them when due."""

    help = "Sends delayed messages when they are due."
    leave_locale_alone = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            metavar="ALIAS",
            help="the channel layer, an alias of CHANNEL_LAYERS; default: %(default)s",
        )
        add_arguments(parser, DelayOptions)

    def handle(self, *_: object, **options: Any) -> None:
        alias = options["layer"]
        if alias not in channel_layers:
            raise CommandError(f"--layer {alias}: CHANNEL_LAYERS has no such alias.")
        try:
            layer = channel_layers[alias]
        except InvalidChannelLayerError as error:
            raise CommandError(str(error)) from None
        if layer.local_only():
            raise CommandError(
                "The in-memory channel layer does not reach other processes, and rundelay is one: "
                'set another BACKEND, for example "channels.layers.LocalChannelLayer".'
            )
        setup_logger("django.channels", options["verbosity"])
        Worker(layer, options=from_mapping(DelayOptions, options)).run()
