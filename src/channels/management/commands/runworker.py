"""`runworker CHANNEL...`: handle the messages of named channels."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from channels import DEFAULT_CHANNEL_LAYER, __version__
from channels.cli import log_unknown_variables
from channels.exceptions import InvalidOption
from channels.kit.options import add_arguments, from_environment, from_mapping, options_of
from channels.kit.process_exit import process_exit
from channels.kit.threads import ThreadOptions, configure_threads
from channels.layers import get_channel_layer
from channels.routing import get_default_application
from channels.server.log_outputs import set_up_logging
from channels.worker import Worker, WorkerOptions

logger = logging.getLogger("django.channels.worker")


class Command(BaseCommand):
    """Runs a worker until SIGTERM or Ctrl-C; handlers that run then may end."""

    leave_locale_alone = True
    worker_class = Worker
    help = "Handles the messages of channels: runs the consumers that ChannelNameRouter names."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            metavar="ALIAS",
            help=f"which of CHANNEL_LAYERS to listen to; default: {DEFAULT_CHANNEL_LAYER}",
        )
        add_arguments(parser, WorkerOptions)
        add_arguments(parser, ThreadOptions)
        parser.add_argument("channels", nargs="+", metavar="channel", help="a channel to listen on")

    def handle(self, *_: Any, **options: Any) -> None:
        alias = options["layer"]
        layer = get_channel_layer(alias)
        if layer is None:
            if get_channel_layer() is None:
                raise CommandError("You do not have any CHANNEL_LAYERS configured.")
            raise CommandError(f"There is no {alias!r} in CHANNEL_LAYERS.")
        capabilities = getattr(layer, "capabilities", None)
        if capabilities is not None and capabilities.is_direct:
            self.stderr.write(
                self.style.WARNING(
                    f"The channel layer {alias!r} stays inside one process, so no message of "
                    "another process will reach this worker. Configure a layer that spans "
                    "processes, for example channels_redis.core.RedisChannelLayer."
                )
            )
        try:
            options = (
                from_environment(WorkerOptions, os.environ)
                | from_environment(ThreadOptions, os.environ)
                | options
            )
        except InvalidOption as error:
            raise CommandError(str(error)) from error
        configure_threads(from_mapping(ThreadOptions, options))
        channels = options["channels"]
        is_command = getattr(self, "_called_from_command_line", False)
        if is_command:
            set_up_logging(options["verbosity"])
        log_unknown_variables()
        self._check_channels(channels, layer)
        logger.info(
            "Started worker, channels %s, process %d: %s of layer %r",
            __version__,
            os.getpid(),
            ", ".join(channels),
            alias,
        )
        # A worker class written for other releases takes no options: it gets none unless asked to.
        given = {each.name for each in options_of(WorkerOptions)} & options.keys()
        more: dict[str, Any] = {"options": from_mapping(WorkerOptions, options)} if given else {}
        worker = self.worker_class(
            application=get_default_application(),
            channels=channels,
            channel_layer=layer,
            **more,
        )
        if is_command:
            process_exit.run(worker.run)
        else:
            worker.run()
        logger.info("Stopped.")

    def _check_channels(self, channels: Sequence[str], layer: Any) -> None:
        """Say at once which name no channel can have, and which channel nobody handles.

        Raises:
            CommandError: If there is one.
        """
        application = getattr(get_default_application(), "application_mapping", {}).get("channel")
        handled = getattr(application, "application_mapping", None)
        for name in channels:
            try:
                if hasattr(layer, "require_valid_channel_name"):
                    layer.require_valid_channel_name(name)
            except TypeError as error:
                raise CommandError(str(error)) from error
            if handled is not None and name not in handled:
                raise CommandError(
                    f"Nothing handles the channel {name!r}: the ChannelNameRouter of "
                    f"ASGI_APPLICATION has {', '.join(map(repr, handled)) or 'none'}."
                )
