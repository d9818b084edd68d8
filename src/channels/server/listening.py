"""The server as commands run it: it says where it listens."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from channels.kit.types import Address, Application
from channels.server.access import AccessRecord
from channels.server.access_log import client_text
from channels.server.endpoints import Endpoint
from channels.server.options import ServerOptions
from channels.server.server import Server

logger = logging.getLogger("channels.server")

#: What to do about a place that cannot be listened at.
_REMEDIES: Final[Mapping[int, str]] = {
    errno.EADDRINUSE: "stop what listens there, or take another --port",
    errno.EACCES: "ports below 1024 need a privilege; take another --port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class ListeningServer(Server):
    """A server that tells when it listens.

    Args:
        on_listening: Called on the server's loop, once `addresses` is known.
    """

    def __init__(
        self,
        application: Application,
        endpoints: Sequence[Endpoint],
        options: ServerOptions,
        on_listening: Callable[[Sequence[Address]], object],
        on_access: Callable[[AccessRecord], None] | None = None,
    ) -> None:
        super().__init__(application, endpoints, options, on_access)
        self._on_listening = on_listening

    async def start(self) -> None:
        trusted = self.options.proxy.trusted_proxies
        if "*" in trusted and any(endpoint.kind != "unix" for endpoint in self.endpoints):
            logger.warning(
                "Every peer is believed what it says of its client's address and scheme: let only "
                "a proxy connect, or name it with --trusted-proxies."
            )
        await super().start()
        self._on_listening(self.addresses)


def tcp_endpoint(host: str, port: int) -> Endpoint:
    """An endpoint for an address or name; an IPv6 address may stand in brackets."""
    return Endpoint("tcp", host=host.strip("[]"), port=port)


def listening_text(address: Address) -> str:
    """What is logged for an address that the server listens on."""
    kind = "Unix socket" if address[1] is None else "TCP address"
    return f"Listening on {kind} {client_text(address)}"


def start_failure_text(error: Exception) -> str:
    """Why a server could not start, and what to do where that is known."""
    number = error.errno if isinstance(error, OSError) else None
    remedy = _REMEDIES.get(number or 0)
    return f"{error}; {remedy}." if remedy else str(error)
