"""From HTTP to WebSocket: the session that takes over a connection whose client asks for it."""

from __future__ import annotations

from channels.kit.types import Scope
from channels.server.seam import Session
from channels.server.service import HttpOutlet, Service
from channels.wire.http1_request import Request


def upgrade(service: Service, outlet: HttpOutlet, request: Request, scope: Scope) -> Session:
    """A WebSocket session for this request."""
    raise NotImplementedError
