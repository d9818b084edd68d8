"""`manage.py runserver`: the development server for HTTP and WebSocket.

Where the default layer has ROUTING it is an interface server, with the workers in the same process
unless --noworker is given.

Django's command reads the options, runs the checks and watches the files; what differs is the
server.  Under the reloader the server runs in a daemon thread of the child process, and Django ends
that process when a file changes.  Open sockets and threads must not hold it up: the server is told
to stop, which closes every socket with a code that says "come back", and whatever still runs after
`GRACE_SECONDS` dies with the process.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, cast

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    SystemCheckError,
)
from django.core.management.commands.runserver import Command as DjangoCommand
from django.db import connections
from django.utils import autoreload

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidOption, StartupFailed
from channels.import_failure import importing
from channels.kit.process_exit import process_exit
from channels.kit.types import Address, Application
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.interface.application import InterfaceServer
from channels.legacy.interface.options import InterfaceOptions
from channels.management.certificate import development_certificate
from channels.management.development import (
    GRACE_SECONDS,
    announce,
    check_origins,
    log_access,
    server_options,
)
from channels.management.logs import add_log_argument, set_up_log
from channels.management.routed import (
    RUNSERVER_HTTP_TIMEOUT,
    RUNSERVER_THREADS,
    InnerWorkers,
    require_several_processes,
    routed_layer,
)
from channels.middleware import single_callable
from channels.routing import get_default_application
from channels.server.listening import ListeningServer, tcp_endpoint
from channels.server.reporting import Reporting

#: Said at each start: with a new browser or profile the question comes again.
BROWSER_WARNING = (
    "The certificate was made on this machine, so the browser will say once that the connection is "
    'not private or the issuer unknown: choose "Advanced" and go on. WebSockets (wss://) of this '
    "host and port work from then on.\n"
)

#: How long a child process may take to exit, because of threads that do not end.
EXIT_SECONDS = 1.0

OS_ERRORS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}


class Command(DjangoCommand):
    """Starts a development server for HTTP and WebSocket."""

    help = "Starts a development server for HTTP and WebSocket, and serves static files."
    #: What the banner calls the server.
    server_label = "Channels"
    protocol = "http"
    addr: str
    port: str
    #: The server while it runs: another thread may call its `request_stop`.
    server: ListeningServer | None = None
    #: The default layer if it has ROUTING.
    routed: ChannelLayerWrapper | None = None
    _reporting = Reporting()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Set once `server.addresses` is known.
        self.is_listening = threading.Event()
        self._has_ended = threading.Event()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Else an error stands below a page of flags.
        usage = "%(prog)s [options] [addrport]"
        return super().create_parser(prog_name, subcommand, **{"usage": usage, **kwargs})

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Run Django's own WSGI server in place of the ASGI one.",
        )
        parser.add_argument(
            "--noworker",
            action="store_false",
            dest="run_worker",
            help="With ROUTING in the default layer: hold the connections only; run `manage.py "
            "runworker` beside it.",
        )
        parser.add_argument(
            "--http_timeout",
            "--http-timeout",
            type=float,
            default=None,
            help="Seconds that a whole response may take; default: no end, with ROUTING in the "
            f"default layer {RUNSERVER_HTTP_TIMEOUT:g}.",
        )
        parser.add_argument(
            "--websocket_handshake_timeout",
            "--websocket-handshake-timeout",
            type=float,
            default=5,
            help="Seconds that the application has to accept a WebSocket; default: 5.",
        )
        for name in ("message", "frame"):
            parser.add_argument(
                f"--websocket-max-{name}-size",
                type=int,
                default=None,
                help=f"Largest WebSocket {name} in bytes, 0 for no limit; default: the setting "
                f"DAPHNE_WEBSOCKET_MAX_{name.upper()}_SIZE, else 1 MiB.",
            )
        parser.add_argument(
            "--nostatic",
            action="store_false",
            dest="use_static_handler",
            # Whoever lists this application wants WhiteNoise's middleware to serve the files.
            default=not apps.is_installed("whitenoise.runserver_nostatic"),
            help="Do not serve static files at STATIC_URL.",
        )
        parser.add_argument(
            "--insecure",
            action="store_true",
            dest="insecure_serving",
            help="Serve static files even if DEBUG is False.",
        )
        add_log_argument(parser)
        self._add_browser_arguments(parser)

    @staticmethod
    def _add_browser_arguments(parser: CommandParser) -> None:
        parser.add_argument(
            "--https",
            action="store_true",
            dest="use_https",
            help="Serve HTTPS and wss://, with a certificate made on the spot, which browsers do "
            "not know and ask about once.",
        )
        parser.add_argument(
            "--any-origin",
            action="store_false",
            dest="check_origins",
            help="Let pages of every site open WebSockets; default: those of ALLOWED_HOSTS, where "
            "the application does not check the origin itself.",
        )

    def handle(self, *args: Any, **options: Any) -> str | None:
        self.routed = routed_layer(DEFAULT_CHANNEL_LAYER) if options["use_asgi"] else None
        if options.get("use_https"):
            if not options["use_asgi"]:
                raise CommandError("--https is for the ASGI server: leave --noasgi out.")
            self.protocol = "https"
        if self.routed is not None:
            if not options["run_worker"]:
                require_several_processes(self.routed)
            if options["http_timeout"] is None:
                options["http_timeout"] = RUNSERVER_HTTP_TIMEOUT
        elif options["use_asgi"] and not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                "You have not set ASGI_APPLICATION, which is needed to run the server."
            )
        is_alone = options["use_asgi"] and not options["use_reloader"]
        is_command = getattr(self, "_called_from_command_line", False)
        if is_command:
            # Django's handlers are for DEBUG alone: without it no traceback would be seen.
            self._set_up_log(options)
        if not (is_alone and is_command):
            return super().handle(*args, **options)
        process_exit.run(partial(self._handle_alone, *args, **options), EXIT_SECONDS)
        return None

    def _set_up_log(self, options: dict[str, Any]) -> None:
        try:
            self._reporting = set_up_log(options, max(0, options["verbosity"] - 1))
        except InvalidOption as error:
            raise CommandError(str(error)) from error
        options["log_format"] = self._reporting.log_format
        if self._reporting.is_json:
            # A level of its own keeps the coloured lines away.
            logging.getLogger("django.channels.server").setLevel(logging.INFO)

    def _handle_alone(self, *args: Any, **options: Any) -> None:
        super().handle(*args, **options)

    def run(self, **options: Any) -> None:
        """Run the server, in a child process that is started anew when a file changes."""
        if not (options["use_asgi"] and options["use_reloader"]):
            return super().run(**options)
        status = 0
        try:
            autoreload.run_with_reloader(self.inner_run, **options)
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
            raise
        finally:
            if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
                self._end_child(status)

    def _end_child(self, status: int) -> None:
        if self.server is not None:
            self.server.request_stop()
            self._has_ended.wait(GRACE_SECONDS + EXIT_SECONDS)
        # The interpreter now joins its threads; a handler that sleeps in one would hold the port.
        process_exit.end_within(EXIT_SECONDS, status)

    def inner_run(self, *args: Any, **options: Any) -> None:
        if not options["use_asgi"]:
            return super().inner_run(*args, **options)
        autoreload.raise_last_exception()
        try:
            # Before the checks, which import it too: what is wrong is told once.
            application = self.get_application(options)
            self._check(options)
        except (StartupFailed, SystemCheckError) as error:
            self._await_repair(error)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        self._serve(application, options)

    def _check(self, options: dict[str, Any]) -> None:
        if options["skip_checks"]:
            return
        self.stdout.write("Performing system checks...\n\n")
        # Not this command's own choice, which is none: those are made before this is called.
        chosen: dict[str, Any] = {**BaseCommand.get_check_kwargs(self, options)}  # type: ignore[dict-item]
        self.check(**chosen, display_num_errors=True)

    def _await_repair(self, error: StartupFailed | SystemCheckError) -> NoReturn:
        """Say what is wrong with the project; the reloader starts anew once a file has changed."""
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
            raise error if isinstance(error, CommandError) else CommandError(str(error))
        self.stderr.write(str(error) if isinstance(error, CommandError) else f"Error: {error}")

        def fail() -> None:
            raise error

        # Let out, it would come with the traceback of its thread; the reloader hears of it here,
        # and watches the file that is at fault.
        with suppress(type(error)):
            autoreload.check_errors(fail)()
        self._has_ended.set()
        sys.exit(1)

    def _serve(self, application: Application, options: dict[str, Any]) -> None:
        try:
            place = tcp_endpoint(self.addr, int(self.port))
            if options.get("use_https"):
                place = replace(place, tls=development_certificate())
            self.server = ListeningServer(
                application,
                [place],
                server_options(options),
                self._on_listening,
                self._reporting.open_access_log() if self._reporting.is_json else log_access,
            )
            is_main = threading.current_thread() is threading.main_thread()
            with self._workers(options):
                self.server.run(install_signals=is_main)
        except (OSError, InvalidOption, StartupFailed) as error:
            self._give_up(OS_ERRORS.get(getattr(error, "errno", None) or 0, str(error)))
        finally:
            self._has_ended.set()
        if message := options.get("shutdown_message"):
            self.stdout.write(message)

    def _give_up(self, reason: str) -> NoReturn:
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
            raise CommandError(reason)
        self.stderr.write(f"Error: {reason}")
        # This is not the child's main thread, and only that one could end it in order.
        sys.stderr.flush()
        os._exit(1)

    def _workers(self, options: dict[str, Any]) -> AbstractContextManager[None]:
        """The workers of this process while it serves, if it shall have some."""
        if self.routed is None or not options["run_worker"]:
            return nullcontext()
        threads = RUNSERVER_THREADS if options["use_threading"] else 1
        return InnerWorkers(self.routed, threads, GRACE_SECONDS)

    def get_application(self, options: dict[str, Any]) -> Application:
        """ASGI_APPLICATION, or the interface server of a layer with ROUTING.

        It stands behind a handler for static files if they are to be served.

        Raises:
            StartupFailed: If the application cannot be imported.
        """
        if self.routed is None:
            with importing(str(getattr(settings, "ASGI_APPLICATION", None))):
                application = single_callable(get_default_application())
            if options.get("check_origins", True):
                application = check_origins(application)
        else:
            protocols = tuple(getattr(settings, "CHANNELS_WS_PROTOCOLS", None) or ())
            application = InterfaceServer(self.routed, InterfaceOptions(ws_protocol=protocols))
        if self._serves_static(options):
            # It calls what it wraps with three arguments; Django's own class is not asked for.
            handler: Any = ASGIStaticFilesHandler(cast("ASGIHandler", application))
            application = handler
        return application

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The WSGI handler of `--noasgi`."""
        handler = super().get_handler(*args, **options)
        return StaticFilesHandler(handler) if self._serves_static(options) else handler

    def _serves_static(self, options: dict[str, Any]) -> bool:
        return (
            apps.is_installed("django.contrib.staticfiles")
            and options["use_static_handler"]
            and (settings.DEBUG or options["insecure_serving"])
        )

    def _on_listening(self, addresses: Sequence[Address]) -> None:
        port = int(addresses[0][1] or 0)
        self._print_banner(port)
        announce(self.addr, port)
        self.is_listening.set()

    def _print_banner(self, port: int) -> None:
        host = {"0": "0.0.0.0"}.get(self.addr, self.addr)
        host = f"[{host}]" if ":" in host else host
        self.stdout.write(
            f"{datetime.now():%B %d, %Y - %X}\n"
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting ASGI/{self.server_label} development server at "
            f"{self.protocol}://{host}:{port}/\n"
            "Quit the server with CONTROL-C.\n"
        )
        if self.protocol == "https":
            self.stdout.write(BROWSER_WARNING)
        self.stdout.flush()
