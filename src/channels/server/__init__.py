"""The interface server: HTTP/1.1, HTTP/2 and WebSocket on one port, for any ASGI application."""

from channels.server.access import AccessRecord
from channels.server.endpoints import Endpoint, parse_endpoint
from channels.server.options import ProxyOptions, ServerOptions
from channels.server.probes import readiness
from channels.server.request_ids import RequestIdFilter, current_request_id
from channels.server.server import Server

__all__ = [
    "AccessRecord",
    "Endpoint",
    "ProxyOptions",
    "RequestIdFilter",
    "Server",
    "ServerOptions",
    "current_request_id",
    "parse_endpoint",
    "readiness",
]
