"""What `runserver` adds to the server: log lines that a developer reads while clicking."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import ParseResult

from django.conf import settings
from django.utils.log import ServerFormatter

from channels.kit.limits import MIB, Limits, Timeouts
from channels.kit.types import Application, Receive, Scope, Send
from channels.security.checks import lacks_origin_check
from channels.security.survey import websocket_routes
from channels.security.websocket import AllowedHosts, OriginValidator
from channels.server import ServerOptions
from channels.server.access import AccessRecord
from channels.server.access_log import client_text, safe
from channels.server.listening import listening_text
from channels.server.log_writer import log_stream
from channels.server.reporting import JSON

logger = logging.getLogger("django.channels.server")

#: What happened to a WebSocket -> the word for it.
WEBSOCKET_WORDS: Final = {
    "websocket.connecting": "HANDSHAKING",
    "websocket.connected": "CONNECT",
    "websocket.rejected": "REJECT",
    "websocket.disconnected": "DISCONNECT",
}
#: Word -> the status whose colour the line gets.
COLOURS: Final = {"HANDSHAKING": 101, "CONNECT": 200, "REJECT": 404, "DISCONNECT": 304}

#: Tells a client that it may come back at once.
SERVICE_RESTART: Final = 1012
#: How long sockets and handlers have to end when the server stops or is started anew.
GRACE_SECONDS: Final = 1.0
#: What holds the event loop for longer is named in the log.
SLOW_CALLBACK_MS: Final = 100.0


class DevelopmentFormatter(ServerFormatter):
    """Requests as `[time] HTTP GET / 200`, in colour; the server's own lines with their level."""

    default_time_format = "%Y/%m/%d %H:%M:%S"
    default_msec_format = None

    def __init__(self) -> None:
        super().__init__("[{server_time}] {message}", style="{")
        self._plain = logging.Formatter("%(asctime)s - %(levelname)s - server - %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "status_code"):
            return super().format(record)
        return self._plain.format(record)


def set_up_logging() -> None:
    """Write `django.channels.server` to the standard error, unless LOGGING sees to it.

    Whoever calls `django.setup()` again, as `get_asgi_application()` does, undoes it; so it is done
    before each line, where need be.
    """
    if logger.handlers or logger.level:
        return
    handler = logging.StreamHandler(log_stream(sys.stderr, "stderr"))
    handler.setFormatter(DevelopmentFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def log_access(record: AccessRecord) -> None:
    """One line for what happened, coloured by its status."""
    client = client_text(record.client)
    word = WEBSOCKET_WORDS.get(record.kind)
    if word is None:
        text = (
            f"HTTP {record.method} {safe(record.path)} {record.status} "
            f"[{record.duration:.2f}, {client}]"
        )
        status = record.status or 500
    else:
        text = f"WebSocket {word} {safe(record.path)} [{client}]"
        status = COLOURS[word]
    set_up_logging()
    # Without arguments, so that a per cent sign in the path means nothing.
    logger.info(text, extra={"status_code": status})


class DevelopmentOrigins(OriginValidator):
    """Refuses WebSockets of pages whose host is not in ALLOWED_HOSTS; programs pass.

    A site that a developer visits could else speak to the application on their machine.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "websocket" and any(name == b"origin" for name, _ in scope["headers"]):
            return await super().__call__(scope, receive, send)
        return await self.application(scope, receive, send)

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        """As everywhere; says in the log who asks, for the application does not."""
        is_valid = super().valid_origin(parsed_origin)
        if not is_valid:
            logger.warning(
                "The application checks no origin, so runserver does: add the host to "
                "ALLOWED_HOSTS, or run it with --any-origin; in production put "
                "AllowedHostsOriginValidator around the consumers."
            )
        return is_valid


def check_origins(application: Application) -> Application:
    """The application, behind a check of WebSockets' origins unless it has one of its own."""
    routes = [*websocket_routes(application)]
    if any(route.passes(OriginValidator) for route in routes):
        return application
    if not any(lacks_origin_check(route) for route in routes):
        return application
    return DevelopmentOrigins(application, AllowedHosts())


def announce(host: str, port: int) -> None:
    """Log where the server listens."""
    escaped = host.replace(":", "\\:")
    set_up_logging()
    logger.info("Configuring endpoint tcp:port=%d:interface=%s", port, escaped)
    logger.info("%s", listening_text((host, port)))


def server_options(options: Mapping[str, Any]) -> ServerOptions:
    """The server's options from those of the command and from Django's settings.

    Raises:
        InvalidOption: If one is out of bounds.
    """
    return ServerOptions(
        limits=Limits(
            max_message_bytes=_size(options["websocket_max_message_size"], "MESSAGE"),
            max_frame_bytes=_size(options["websocket_max_frame_size"], "FRAME"),
        ),
        timeouts=Timeouts(
            http_timeout=options["http_timeout"] or None,
            handshake_timeout=_endless_if_negative(options["websocket_handshake_timeout"]),
            shutdown_timeout=GRACE_SECONDS,
        ),
        websocket_stop_code=SERVICE_RESTART,
        slow_callback_ms=SLOW_CALLBACK_MS,
        request_ids=options.get("log_format") == JSON,
        root_path=(settings.FORCE_SCRIPT_NAME or "").rstrip("/"),
    )


def _size(given: int | None, name: str) -> int | None:
    if given is None:
        given = getattr(settings, f"DAPHNE_WEBSOCKET_MAX_{name}_SIZE", MIB)
    return given or None


def _endless_if_negative(seconds: float) -> float | None:
    return None if seconds < 0 else seconds
