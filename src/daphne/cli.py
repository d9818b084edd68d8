"""The `daphne` command with the options, defaults and rules that its users know."""

from __future__ import annotations

import argparse
import logging
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from functools import partial
from typing import Any

from channels.exceptions import InvalidOption, StartupFailed
from channels.kit.limits import MIB
from channels.kit.options import Parser
from channels.kit.process_exit import process_exit
from channels.kit.types import Application
from channels.legacy.interface.options import HTTP_TIMEOUT_SECONDS
from channels.loading import (
    as_application,
    interface_of,
    is_channel_layer,
    is_routed,
    load_object,
)
from channels.server.listening import start_failure_text
from channels.server.log_outputs import LOG_FORMAT, access_stream, set_up_logging
from daphne.access import AccessLogGenerator
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

#: Flags, keyword arguments; in the order of the help text.
OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-p", "--port"), {"type": int, "default": None, "help": "TCP port; default: 8000"}),
    (("-b", "--bind"), {"dest": "host", "default": None, "help": "address; default: 127.0.0.1"}),
    (
        ("--websocket_timeout",),
        {"type": int, "default": 86400, "help": "life of a WebSocket in seconds; negative: no end"},
    ),
    (
        ("--websocket_connect_timeout",),
        {
            "type": int,
            "default": 5,
            "help": "seconds for the application to accept a WebSocket; negative: no end",
        },
    ),
    (("-u", "--unix-socket"), {"dest": "unix_socket", "default": None, "help": "path to bind"}),
    (
        ("--fd",),
        {"type": int, "dest": "file_descriptor", "default": None, "help": "listening descriptor"},
    ),
    (
        ("-e", "--endpoint"),
        {
            "dest": "socket_strings",
            "action": "append",
            "default": [],
            "help": "endpoint such as ssl:443:privateKey=key.pem:certKey=crt.pem; repeatable",
        },
    ),
    (
        ("-v", "--verbosity"),
        {"type": int, "default": 1, "choices": range(4), "help": "0 warnings ... 3 everything"},
    ),
    (
        ("-t", "--http-timeout"),
        {
            "type": int,
            "default": None,
            "help": "seconds for a whole response; default: no end, and "
            f"{HTTP_TIMEOUT_SECONDS:g} for a channel layer of Channels 1; 0: no end",
        },
    ),
    (
        ("--access-log",),
        {"default": None, "help": "file for the access log, - for the standard output"},
    ),
    (("--log-fmt",), {"default": LOG_FORMAT, "help": "form of a log line"}),
    (("--ping-interval",), {"type": int, "default": 20, "help": "seconds between pings"}),
    (("--ping-timeout",), {"type": int, "default": 30, "help": "seconds to wait for a pong"}),
    (
        ("--websocket-max-message-size",),
        {"type": int, "default": MIB, "help": "largest message in bytes; 0: no limit"},
    ),
    (
        ("--websocket-max-frame-size",),
        {"type": int, "default": MIB, "help": "largest frame in bytes; 0: no limit"},
    ),
    (
        ("--application-close-timeout",),
        {"type": int, "default": 10, "help": "seconds that an application has to end in"},
    ),
    (("--root-path",), {"default": "", "help": "root_path of each scope"}),
    (
        ("--proxy-headers",),
        {
            "action": "store_true",
            "help": "believe X-Forwarded-For, -Port and -Proto, from everybody who connects unless "
            "--trusted-proxies says from whom",
        },
    ),
    (
        ("--trusted-proxies",),
        {
            "action": "append",
            "default": None,
            "help": "with --proxy-headers: addresses and networks of the proxies, separated by "
            "commas; unix for peers on a Unix socket; repeatable",
        },
    ),
    (
        ("--proxy-headers-host",),
        {"dest": "proxy_headers_host", "default": None, "help": "header of the client's address"},
    ),
    (
        ("--proxy-headers-port",),
        {"dest": "proxy_headers_port", "default": None, "help": "header of the client's port"},
    ),
    (
        ("--proxy-headers-root-path",),
        {"default": None, "help": "header of the root_path, Daphne-Root-Path say; default: none"},
    ),
    (("-s", "--server-name"), {"default": "daphne", "help": "Server header; empty: none"}),
    (
        ("--no-server-name",),
        {"dest": "server_name", "action": "store_const", "const": "", "help": "no Server header"},
    ),
    (
        ("--ws-protocol",),
        {
            "dest": "ws_protocols",
            "action": "append",
            "default": [],
            "help": "with a channel layer of Channels 1: WebSocket subprotocol to agree to; "
            "repeatable",
        },
    ),
    (
        ("--force-sync",),
        {"action": "store_true", "help": "of no effect: the layer is never polled"},
    ),
    (
        ("--prefix",),
        {"default": None, "help": "of no effect: the layer's CONFIG has the prefix"},
    ),
    (
        ("application",),
        {"help": "where the application or channel layer is: module:attribute"},
    ),
)


class CommandLineInterface:
    """One run of the command; subclasses may put another `server_class` in."""

    description = "An HTTP and WebSocket server for ASGI applications"
    server_class = Server

    def __init__(self) -> None:
        self.parser = Parser(prog="daphne", description=self.description)
        actions = {}
        for flags, keywords in OPTIONS:
            action = self.parser.add_argument(*flags, **keywords)
            actions[action.dest] = action
        self.arg_proxy_host = actions["proxy_headers_host"]
        self.arg_proxy_port = actions["proxy_headers_port"]
        self.arg_proxy_root_path = actions["proxy_headers_root_path"]
        self.arg_trusted_proxies = actions["trusted_proxies"]
        self.server: Server | None = None
        #: What the interface server of a channel layer is told.
        self._layer_options: dict[str, Any] = {}
        #: For a whole response, unless --http-timeout says it.
        self._http_timeout: float | None = None

    @classmethod
    def entrypoint(cls) -> None:
        """The console script: errors in the arguments end it with status 2."""
        interface = cls()
        process_exit.run(partial(interface._run_command, sys.argv[1:]))

    def _run_command(self, args: Sequence[str]) -> None:
        try:
            self.run(args)
        except (ArgumentError, InvalidOption) as error:
            self.parser.error(str(error))
        except (OSError, StartupFailed) as error:
            self.parser.exit(1, f"daphne: error: {start_failure_text(error)}\n")

    def load_asgi_app(self, asgi_app_path: str) -> Application:
        """The application at "module:attribute"; for a channel layer, its interface server.

        Raises:
            InvalidOption: If there is none.
        """
        found = load_object(asgi_app_path)
        if is_channel_layer(found):
            self._http_timeout = HTTP_TIMEOUT_SECONDS if is_routed(found) else None
            return interface_of(found, self._layer_options)
        return as_application(found, asgi_app_path)

    def run(self, args: Sequence[str]) -> None:
        """Serve until told to stop.

        Raises:
            ArgumentError: If a proxy or its header is named without --proxy-headers.
            InvalidOption: If an option or the application's path is wrong.
        """
        options = self.parser.parse_args(args)
        set_up_logging(options.verbosity, logging.Formatter(options.log_fmt))
        self._layer_options = {"ws_protocol": options.ws_protocols}
        application = self.load_asgi_app(options.application)
        http_timeout = options.http_timeout
        if http_timeout is None:
            http_timeout = self._http_timeout
        proxy = self._proxy_headers(options)
        self.server = self.server_class(
            application=application,
            endpoints=endpoint_strings(options),
            http_timeout=http_timeout,
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            websocket_timeout=options.websocket_timeout,
            websocket_connect_timeout=options.websocket_connect_timeout,
            websocket_handshake_timeout=options.websocket_connect_timeout,
            websocket_max_message_size=options.websocket_max_message_size,
            websocket_max_frame_size=options.websocket_max_frame_size,
            application_close_timeout=options.application_close_timeout,
            action_logger=self._action_logger(options),
            root_path=options.root_path,
            verbosity=options.verbosity,
            server_name=options.server_name,
            **proxy,
        )
        self.server.run()

    def _proxy_headers(self, options: argparse.Namespace) -> dict[str, Any]:
        named = {
            self.arg_proxy_host: options.proxy_headers_host,
            self.arg_proxy_port: options.proxy_headers_port,
            self.arg_proxy_root_path: options.proxy_headers_root_path,
            self.arg_trusted_proxies: options.trusted_proxies,
        }
        for action, value in named.items():
            if value is not None and not options.proxy_headers:
                raise ArgumentError(action, "needs --proxy-headers as well")
        if not options.proxy_headers:
            return {}
        found: dict[str, Any] = {
            "proxy_forwarded_address_header": options.proxy_headers_host or "X-Forwarded-For",
            "proxy_forwarded_port_header": options.proxy_headers_port or "X-Forwarded-Port",
            "proxy_forwarded_proto_header": "X-Forwarded-Proto",
        }
        # Only if asked for: a `server_class` of somebody else's may not know them.
        if options.proxy_headers_root_path is not None:
            found["proxy_root_path_header"] = options.proxy_headers_root_path
        if options.trusted_proxies is not None:
            words = ",".join(options.trusted_proxies).split(",")
            found["trusted_proxies"] = tuple(word.strip() for word in words if word.strip())
        return found

    def _action_logger(self, options: argparse.Namespace) -> AccessLogGenerator | None:
        place = options.access_log or ("-" if options.verbosity >= 1 else None)
        return None if place is None else AccessLogGenerator(access_stream(place))


def endpoint_strings(options: argparse.Namespace) -> list[str]:
    """Where to listen: what was asked for, and TCP if that is nothing else or half of it."""
    elsewhere = options.unix_socket or options.file_descriptor is not None or options.socket_strings
    host, port = options.host, options.port
    if host or port is not None or not elsewhere:
        host = host or DEFAULT_HOST
        port = DEFAULT_PORT if port is None else port
    built = build_endpoint_description_strings(
        host=host,
        port=port,
        unix_socket=options.unix_socket,
        file_descriptor=options.file_descriptor,
    )
    return sorted(options.socket_strings + built)
