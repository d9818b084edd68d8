"""`runworker`: handle the messages of a channel layer.

    ROUTING  channels  what it runs
    yes      none      the consumers that ROUTING names, for all of its channels or those that
                       --only-channels and --exclude-channels leave
    no       some      the consumers that ChannelNameRouter names for them
    no       none      the consumers of ASGI_APPLICATION, for connections that an interface server
                       (`channels interface`) holds

An option that is of no use in the case at hand is refused.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeVar

from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils.autoreload import get_child_arguments

from channels import DEFAULT_CHANNEL_LAYER, __version__
from channels.cli import KILL_SECONDS, RELOADED, Reloading, log_unknown_variables
from channels.decoupled.options import ConnectionWorkerOptions
from channels.decoupled.worker import ConnectionWorker
from channels.exceptions import InvalidOption, StartupFailed
from channels.import_failure import importing
from channels.kit.options import add_arguments, from_environment, from_mapping, options_of
from channels.kit.process_exit import process_exit
from channels.kit.threads import ThreadOptions, configure_threads
from channels.layers import get_channel_layer
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.worker_options import RoutedOptions
from channels.management.logs import add_log_argument, set_up_log
from channels.management.routed import make_workers, require_several_processes, routed_layer
from channels.metrics_port import MetricsPort
from channels.routing import ProtocolTypeRouter, get_default_application
from channels.supervisor.reloading import Watched, is_child, run_reloading
from channels.worker import Worker, WorkerOptions

T = TypeVar("T")

logger = logging.getLogger("django.channels.worker")

#: All workers take it.
_SHARED: Final = frozenset({"shutdown_timeout"})


class Command(BaseCommand):
    """Runs a worker until SIGTERM or Ctrl-C; handlers that run then may end."""

    leave_locale_alone = True
    worker_class = Worker
    help = (
        "Handles the messages of a channel layer: with ROUTING by the consumers that it names, "
        "else by those of ASGI_APPLICATION."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Else an error stands below a page of flags.
        usage = "%(prog)s [options] [channel ...]"
        return super().create_parser(prog_name, subcommand, **{"usage": usage, **kwargs})

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
        add_arguments(parser, Reloading)
        add_arguments(parser, MetricsPort)
        add_log_argument(parser)
        add_arguments(parser.add_argument_group("for a layer with ROUTING"), RoutedOptions)
        group = parser.add_argument_group("for connections that `channels interface` holds")
        add_arguments(group, ConnectionWorkerOptions, without=_SHARED)
        parser.add_argument(
            "channels",
            nargs="*",
            metavar="channel",
            help="without ROUTING: a channel to listen on; none: handle connections that "
            "`channels interface` holds",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        is_command = getattr(self, "_called_from_command_line", False)
        try:
            if is_command:
                set_up_log(options, options["verbosity"])
            log_unknown_variables()
            reloading = _with_environment(Reloading, options)
            if is_command and reloading.reload:
                options = {"shutdown_timeout": RELOADED["shutdown_timeout"]} | options
                if not is_child(os.environ):
                    _run_reloading(reloading, options["shutdown_timeout"])
                    return
            worker = self._make_worker(options)
            _with_environment(MetricsPort, options).open()
        except (InvalidOption, StartupFailed) as error:
            raise CommandError(str(error)) from error
        if is_command:
            process_exit.run(worker.run)
        else:
            worker.run()
        logger.info("Stopped.")

    def _make_worker(self, options: dict[str, Any]) -> Any:
        """The worker that the layer and the channels call for; raises as those below do."""
        alias = options["layer"]
        layer = get_channel_layer(alias)
        if layer is None:
            known = ", ".join(map(repr, getattr(settings, "CHANNEL_LAYERS", None) or ()))
            if not known:
                raise CommandError(
                    "You do not have any CHANNEL_LAYERS configured. Write into the settings "
                    'CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.LocalChannelLayer"}}'
                )
            raise CommandError(f"There is no {alias!r} in CHANNEL_LAYERS, which has {known}.")
        routed = routed_layer(alias)
        if routed is None:
            return self._worker(layer, options)
        require_several_processes(routed)
        return self._routed_worker(routed, options)

    def _routed_worker(self, layer: ChannelLayerWrapper, options: dict[str, Any]) -> Any:
        """The worker of a layer with ROUTING.

        Raises:
            CommandError: If an option is given that is of no use then, or no channel is left.
            InvalidOption: If one is out of bounds.
        """
        alias = options["layer"]
        if names := options["channels"]:
            chosen = " ".join(f"--only-channels {name}" for name in names)
            raise CommandError(
                f"The layer {alias!r} has ROUTING, which names the channels; to listen on some of "
                f"them: runworker {chosen}"
            )
        _refuse_others(
            options,
            (RoutedOptions,),
            f"of no use where the layer has ROUTING, as {alias!r} has; --threads says how many "
            "consumers run at once.",
        )
        said = _with_environment(RoutedOptions, options)
        # Without a graceful stop the worker has options of its own.
        more: dict[str, Any] = {"stop_gracefully": False}
        if not said.disable_graceful_stop:
            more = {"options": _with_environment(WorkerOptions, options)}
        worker = make_workers(
            layer,
            said.threads,
            callback=_log_message if options["verbosity"] > 1 else None,
            only_channels=said.only_channels,
            exclude_channels=said.exclude_channels,
            **more,
        )
        known = sorted(layer.router.channels)
        channels = worker.apply_channel_filters(known)
        if not channels:
            raise CommandError(
                "--only-channels and --exclude-channels leave no channel of the routing, which has "
                f"{', '.join(known)}."
            )
        self._log_started(channels, alias)
        return worker

    def _worker(self, layer: Any, options: dict[str, Any]) -> Any:
        """The worker of a layer without.

        Raises:
            CommandError: If an option is given that is of no use then, or a channel cannot be had.
            InvalidOption: If one is out of bounds.
        """
        alias, channels = options["layer"], options["channels"]
        if channels:
            advice = "for named channels of a layer without ROUTING; --parallel says how many run."
            _refuse_others(options, (WorkerOptions, ThreadOptions), f"of no use {advice}")
        capabilities = getattr(layer, "capabilities", None)
        is_direct = capabilities is not None and capabilities.is_direct
        # Else the check has told it (channels.W004).
        if is_direct and options.get("skip_checks", True):
            self.stderr.write(
                self.style.WARNING(
                    f"The channel layer {alias!r} stays inside one process, so no message of "
                    "another process will reach this worker. Configure a layer that spans "
                    "processes, for example channels.layers.LocalChannelLayer."
                )
            )
        configure_threads(_with_environment(ThreadOptions, options))
        if not channels:
            return self._connection_worker(layer, options)
        application = _application()
        _check_channels(application, channels, layer)
        # A worker class written for other releases takes no options: it gets none unless asked to.
        names = from_environment(WorkerOptions, os.environ) | options
        more: dict[str, Any] = {}
        if any(each.name in names for each in options_of(WorkerOptions)):
            more["options"] = _with_environment(WorkerOptions, options)
        worker = self.worker_class(
            application=application,
            channels=channels,
            channel_layer=layer,
            **more,
        )
        self._log_started(channels, alias)
        return worker

    def _connection_worker(self, layer: Any, options: dict[str, Any]) -> Any:
        _refuse_others(
            options,
            (ConnectionWorkerOptions, ThreadOptions),
            "of no use for connections that `channels interface` holds; to listen on channels "
            "name them, as in: runworker thumbnails",
        )
        own = _with_environment(ConnectionWorkerOptions, options)
        worker = ConnectionWorker(_application(), layer, own)
        self._log_started(["connections"], options["layer"])
        return worker

    def _log_started(self, channels: Sequence[str], alias: str) -> None:
        logger.info(
            "Started worker, channels %s, process %d: %s of layer %r",
            __version__,
            os.getpid(),
            ", ".join(channels),
            alias,
        )


def _application() -> Any:
    """ASGI_APPLICATION.

    Raises:
        StartupFailed: If it cannot be imported.
    """
    with importing(str(getattr(settings, "ASGI_APPLICATION", None))):
        return get_default_application()


def _check_channels(application: Any, channels: Sequence[str], layer: Any) -> None:
    """Say at once which name no channel can have, and which channel nobody handles.

    Raises:
        CommandError: If there is one.
    """
    for name in channels:
        try:
            if hasattr(layer, "require_valid_channel_name"):
                layer.require_valid_channel_name(name)
        except TypeError as error:
            raise CommandError(str(error)) from error
    mapping = getattr(application, "application_mapping", {})
    if isinstance(application, ProtocolTypeRouter) and "channel" not in mapping:
        raise CommandError(
            f"Nothing handles the channel {channels[0]!r}: the ProtocolTypeRouter of "
            'ASGI_APPLICATION has no entry "channel"; give it '
            f'"channel": ChannelNameRouter({{"{channels[0]}": YourConsumer.as_asgi()}}).'
        )
    handled = getattr(mapping.get("channel"), "application_mapping", None)
    for name in channels:
        if handled is not None and name not in handled:
            raise CommandError(
                f"Nothing handles the channel {name!r}: the ChannelNameRouter of "
                f"ASGI_APPLICATION has {', '.join(map(repr, handled)) or 'none'}."
            )


def _run_reloading(reloading: Reloading, shutdown_timeout: float | None) -> None:
    """Run this command in a process that is started anew on each change, until told to stop."""
    folders = reloading.reload_dir or (os.getcwd(),)
    # A worker that waits for its handlers without a bound would not be started anew.
    seconds = (shutdown_timeout or 0.0) + KILL_SECONDS
    watched = Watched(get_child_arguments(), folders, seconds)
    process_exit.run(partial(run_reloading, watched))


def _refuse_others(options: dict[str, Any], tables: Sequence[type], why: str) -> None:
    """Raise CommandError, with the reason, if a flag of other tables than these is given."""
    every = [WorkerOptions, ThreadOptions, RoutedOptions, ConnectionWorkerOptions]
    used = {each.name for table in tables for each in options_of(table)} | _SHARED
    others = {each.name: each.flag for table in every for each in options_of(table)}
    if given := [flag for name, flag in others.items() if name in options and name not in used]:
        raise CommandError(f"{', '.join(given)}: {why}")


def _with_environment(table: type[T], options: dict[str, Any]) -> T:
    """A table of options from flags, else from environment variables.

    Raises:
        InvalidOption: If one is out of bounds.
    """
    return from_mapping(table, from_environment(table, os.environ) | options)


def _log_message(channel: str, message: Any) -> None:  # noqa: ARG001 - what it says is nobody's
    logger.info("%s", channel)
