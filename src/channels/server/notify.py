"""Tell systemd, or another supervisor that speaks its protocol, how far the server is."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

logger: Final = logging.getLogger("django.channels.server")

#: A supervisor that reads nothing must not hold the server.
_SEND_SECONDS: Final = 1.0


def notify(state: str) -> None:
    """Send `state`, such as "READY=1", to the socket in NOTIFY_SOCKET: sd_notify(3).

    Nothing is sent without that variable; a failure is logged.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.settimeout(_SEND_SECONDS)
            supervisor.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("Cannot send %r to NOTIFY_SOCKET: %s.", state, error)
