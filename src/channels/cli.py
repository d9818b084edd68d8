"""The `channels` command, for servers without Django's manage.py.

    channels serve mysite.asgi:application --port 8000
    channels interface mysite.asgi:channel_layer --port 8000

Each option is declared once, on a dataclass; its flag, its environment variable (`CHANNELS_` and
the flag's name in capitals) and its place in the docs are derived.  A flag beats the environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import logging
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from channels import DEFAULT_CHANNEL_LAYER, __version__
from channels.exceptions import InvalidOption, StartupFailed
from channels.kit.options import (
    Parser,
    add_arguments,
    check_options,
    from_environment,
    from_mapping,
    option,
    unknown_variables,
)
from channels.kit.process_exit import process_exit
from channels.kit.threads import ThreadOptions, configure_threads
from channels.kit.types import Address, Application
from channels.layers.isolation import VARIABLE as TEST_RUN
from channels.layers.registry import channel_layers
from channels.legacy.interface.options import HTTP_TIMEOUT_SECONDS
from channels.legacy.worker_options import RoutedOptions
from channels.loading import (
    find_layer,
    interface_of,
    interface_tables,
    is_routed,
    load_application,
)
from channels.metrics_port import MetricsPort
from channels.server import ServerOptions, readiness
from channels.server.access_log import client_text
from channels.server.endpoints import Endpoint, Tls, parse_endpoint
from channels.server.listening import (
    ListeningServer,
    listening_text,
    start_failure_text,
    tcp_endpoint,
)
from channels.server.reporting import Reporting
from channels.status_command import add_status
from channels.supervisor.control import ASSIGNMENT
from channels.supervisor.options import Workers
from channels.supervisor.reloading import CHILD, Watched, is_child, run_reloading
from channels.supervisor.shared_counts import shared_counts
from channels.supervisor.supervising import Supervised, run_workers
from channels.supervisor.worker_end import WorkerEnd, join_supervisor
from channels.worker import WorkerOptions

logger = logging.getLogger("channels.cli")

_EPILOG: Final = (
    "Each option can also be given in the environment, by the name in brackets: CHANNELS_PORT=8001."
)

#: How a command ends whose arguments made no sense, as argparse does it.
BAD_USAGE = 2
CANNOT_START = 1


@dataclass(frozen=True, slots=True)
class Listening:
    """Where `channels serve` listens."""

    host: str = option("127.0.0.1", short="-b", help="address or name to listen on")
    port: int = option(
        8000,
        short="-p",
        unit="number",
        minimum=0,
        maximum=65535,
        help="TCP port; 0 takes a free one",
    )
    unix_socket: str | None = option(
        None, short="-u", none="no Unix socket", help="path of a Unix socket to listen on"
    )
    fd: int | None = option(
        None, unit="number", minimum=0, none="no descriptor", help="inherited listening socket"
    )
    endpoint: tuple[str, ...] = option(
        (),
        short="-e",
        help="tcp:port=N:interface=HOST, ssl:N:privateKey=FILE:certKey=FILE, unix:PATH or "
        "fd:fileno=N; may be given several times; without interface=HOST it is at --host",
    )

    certificate: str | None = option(
        None,
        none="no TLS",
        help="file of a certificate in PEM, its chain behind it: TLS at --host and --port",
    )
    private_key: str | None = option(
        None, none="in the certificate's file", help="file of the certificate's private key in PEM"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.private_key is not None and self.certificate is None:
            raise InvalidOption("--private-key needs the certificate that it is of: --certificate.")

    def endpoints(self, given: set[str]) -> list[Endpoint]:
        """What to listen on; TCP only if it is the only place or `given` names a part of it.

        An endpoint of TCP or TLS that names no interface has the one of `host`.
        """
        found = [parse_endpoint(text) for text in self.endpoint]
        at_host = [each for each in found if each.kind == "tcp" and not each.host]
        found = [each for each in found if each not in at_host]
        found += [dataclasses.replace(each, host=self.host.strip("[]")) for each in at_host]
        if self.unix_socket is not None:
            found.append(Endpoint("unix", path=self.unix_socket))
        if self.fd is not None:
            found.append(Endpoint("fd", number=self.fd))
        names_place = not given.isdisjoint({"port", "certificate"})
        if not found or names_place or ("host" in given and not at_host):
            place = tcp_endpoint(self.host, self.port)
            if self.certificate is not None:
                tls = Tls(self.private_key or self.certificate, self.certificate)
                place = dataclasses.replace(place, tls=tls)
            found.append(place)
        return found


@dataclass(frozen=True, slots=True)
class Reloading:
    """Whether a server or worker starts anew when the code changes: for development."""

    reload: bool = option(False, help="start anew whenever a Python file changes")
    reload_dir: tuple[str, ...] = option(
        (),
        help="folder to watch, in place of the working directory; may be given several times",
    )

    def __post_init__(self) -> None:
        check_options(self)


#: What the server does differently while it is started anew all the time, unless told otherwise:
#: clients are asked to come back at once, and nothing holds it up for long.
RELOADED = {"websocket_stop_code": 1012, "shutdown_timeout": 1.0}
#: Between the server's own shutdown timeout and the end of its process by force.
KILL_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `channels` command; returns the process's exit status.

    Args:
        arguments: None takes those of the process, which must end then: its signals and its exit
            are taken over.
    """
    if arguments is None:
        return process_exit.run(partial(main, sys.argv[1:]))
    parser = make_parser()
    namespace = parser.parse_args(arguments, argparse.Namespace(words=arguments))
    run: Callable[[argparse.Namespace], int] = namespace.run
    try:
        return run(namespace)
    except InvalidOption as error:
        sys.stderr.write(f"{parser.prog} {namespace.command}: error: {error}\n")
        return BAD_USAGE
    except StartupFailed as error:
        return _cannot_start(namespace.command, error)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="channels", description="WebSockets, events and workers for ASGI applications."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve an ASGI application over HTTP and WebSocket",
        description="Serve an ASGI application over HTTP and WebSocket.",
        epilog=_EPILOG,
    )
    serve.add_argument("application", help="where it is: mysite.asgi:application")
    for table in _tables():
        add_arguments(serve, table)
    serve.set_defaults(run=run_serve)
    interface = commands.add_parser(
        "interface",
        help="hold the connections of a site whose workers run elsewhere",
        description="Hold HTTP and WebSocket connections, and carry them over a channel layer to "
        "workers (manage.py runworker), which can be restarted meanwhile.  Runs no code of the "
        "site.  With a layer that has ROUTING, --http-timeout is "
        f"{HTTP_TIMEOUT_SECONDS:g} unless given.",
        epilog=_EPILOG,
    )
    interface.add_argument(
        "application",
        nargs="?",
        metavar="LAYER",
        help="where the channel layer is: mysite.asgi:channel_layer; default: the one that --layer "
        "names in CHANNEL_LAYERS of the settings in DJANGO_SETTINGS_MODULE",
    )
    interface.add_argument(
        "--layer",
        default=DEFAULT_CHANNEL_LAYER,
        metavar="ALIAS",
        help=f"which of CHANNEL_LAYERS; default: {DEFAULT_CHANNEL_LAYER}",
    )
    for table in _interface_tables():
        add_arguments(interface, table)
    interface.set_defaults(run=run_interface)
    add_status(commands)
    return parser


def run_serve(namespace: argparse.Namespace) -> int:
    """`channels serve`: blocks until the server was told to stop.

    Raises:
        InvalidOption: If an option or the application's path is wrong.
    """
    values = given_values(namespace, _tables())
    workers = from_mapping(Workers, values)
    worker = join_supervisor(os.environ, workers)
    _set_up_logging(values, worker)
    endpoints = from_mapping(Listening, values).endpoints(set(values))
    reloading = from_mapping(Reloading, values)
    if worker is not None:
        endpoints = list(worker.endpoints(endpoints))
    elif workers.workers > 1:
        if reloading.reload:
            raise InvalidOption(
                f"--reload serves in one process, and --workers asks for {workers.workers}: leave "
                "out one of the two; SIGHUP gives workers new code."
            )
        return _run_workers(namespace, endpoints, workers, server_options(values))
    elif reloading.reload:
        values = RELOADED | values
        if not is_child(os.environ):
            return _run_reloading(namespace, reloading, server_options(values))
    configure_threads(from_mapping(ThreadOptions, values))
    application = load_application(namespace.application)
    # Once for all workers; and an application that is none of Django's shall not load it.
    if (worker is None or worker.number == 1) and "django.apps" in sys.modules:
        importlib.import_module("channels.checks").log_layers()
    return _serve("serve", namespace.application, application, values, endpoints, worker)


def run_interface(namespace: argparse.Namespace) -> int:
    """`channels interface`: blocks until the server was told to stop.

    Raises:
        InvalidOption: If an option is wrong, or there is no channel layer that spans processes.
    """
    values = given_values(namespace, _interface_tables())
    _set_up_logging(values)
    name = namespace.application or f"layer {namespace.layer!r}"
    layer = find_layer(namespace.application, namespace.layer)
    if is_routed(layer):
        values = {"http_timeout": HTTP_TIMEOUT_SECONDS} | values
    endpoints = from_mapping(Listening, values).endpoints(set(values))
    from_mapping(MetricsPort, values).open()
    return _serve("interface", name, interface_of(layer, values), values, endpoints)


def _set_up_logging(values: Mapping[str, Any], worker: WorkerEnd | None = None) -> None:
    from_mapping(Reporting, values).set_up(None if worker is None else worker.number)
    if worker is None:
        log_unknown_variables()


def _serve(
    command: str,
    name: str,
    application: Application,
    values: Mapping[str, Any],
    endpoints: Sequence[Endpoint],
    worker: WorkerEnd | None = None,
) -> int:
    """Serve until told to stop; the process's exit status."""
    reporting = from_mapping(Reporting, values)
    if worker is not None:
        worker.check_layers()
    server = ListeningServer(
        application,
        endpoints,
        server_options(values),
        partial(_log_started, f": {name}") if worker is None else worker.on_listening,
        reporting.open_access_log(),
    )
    readiness.require(channel_layers.out_of_reach)
    if worker is not None:
        worker.follow(server)
    try:
        server.run()
    except OSError as error:
        return _cannot_start(command, error)
    # For those who look at this worker's counts when it is gone.
    shared_counts.look()
    return 0


def _cannot_start(command: str, error: Exception) -> int:
    sys.stderr.write(f"channels {command}: error: {start_failure_text(error)}\n")
    return CANNOT_START


def _run_workers(
    namespace: argparse.Namespace,
    endpoints: Sequence[Endpoint],
    workers: Workers,
    options: ServerOptions,
) -> int:
    command = [sys.executable, "-m", "channels", *namespace.words]
    supervised = Supervised(command, endpoints, workers, options.timeouts.stop_seconds)
    with_workers = f" with {workers.workers} workers: {namespace.application}"
    try:
        return run_workers(supervised, partial(_log_started, with_workers))
    except OSError as error:
        return _cannot_start("serve", error)


def _run_reloading(
    namespace: argparse.Namespace, reloading: Reloading, options: ServerOptions
) -> int:
    command = [sys.executable, "-m", "channels", *namespace.words]
    folders = reloading.reload_dir or (os.getcwd(),)
    stop_seconds = options.timeouts.shutdown_timeout + KILL_SECONDS
    return run_reloading(Watched(command, folders, stop_seconds))


def given_values(namespace: argparse.Namespace, tables: Iterable[type]) -> dict[str, Any]:
    """The options of these tables that were given: by flag, else by environment variable."""
    values: dict[str, Any] = {}
    for table in tables:
        values.update(from_environment(table, os.environ))
    values.update(vars(namespace))
    return values


def log_unknown_variables() -> None:
    """Warn of environment variables that look like options and are none of any command's."""
    ours = {CHILD, TEST_RUN, ASSIGNMENT}
    environ = {name: text for name, text in os.environ.items() if name not in ours}
    tables = [*_tables(), *interface_tables(), MetricsPort, WorkerOptions, RoutedOptions]
    for line in unknown_variables(tables, environ):
        logger.warning("%s", line)


def server_options(values: Mapping[str, Any]) -> ServerOptions:
    """The server's options from one flat mapping; what is not in it keeps its default.

    Raises:
        InvalidOption: If a value is out of bounds.
    """
    if from_mapping(Reporting, values).is_json:
        values = {"request_ids": True, **values}
    parts: dict[str, Any] = {
        name: from_mapping(table, values) for name, table in _server_tables() if name
    }
    return dataclasses.replace(from_mapping(ServerOptions, values), **parts)


def _tables() -> Iterator[type]:
    """Every table of options that `channels serve` takes."""
    yield from (Listening, Workers, Reporting, Reloading, ThreadOptions)
    yield from dict(_server_tables()).values()


def _interface_tables() -> Iterator[type]:
    """Every table of options that `channels interface` takes."""
    yield from (Listening, Reporting, MetricsPort, *interface_tables())
    yield from dict(_server_tables()).values()


def _server_tables() -> Iterator[tuple[str, type]]:
    """ServerOptions under "", and each table of options that it bundles under its field's name."""
    yield "", ServerOptions
    hints = typing.get_type_hints(ServerOptions)
    for field in dataclasses.fields(ServerOptions):
        if dataclasses.is_dataclass(hints[field.name]):
            yield field.name, cast("type", hints[field.name])


def _log_started(what: str, addresses: Sequence[Address]) -> None:
    for address in addresses:
        logger.info("%s", listening_text(address))
    places = ", ".join(client_text(address) for address in addresses)
    logger.info("Started channels %s, process %d%s at %s", __version__, os.getpid(), what, places)
