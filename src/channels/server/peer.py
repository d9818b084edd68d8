"""The two ends of a connection, as an application is told of them."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from channels.kit.types import Address


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is connected, where, and how."""

    #: The client; None on a Unix socket, whose clients have no address.
    client: Address | None
    #: Our end; a Unix socket has its path and None.
    server: Address | None
    is_secure: bool = False
    is_unix: bool = False
    #: The protocol that was chosen by ALPN; empty if none was.
    protocol: str = ""


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """What the transport knows of its two ends."""
    is_secure = transport.get_extra_info("sslcontext") is not None
    tls = transport.get_extra_info("ssl_object")
    protocol = (tls.selected_alpn_protocol() or "") if tls is not None else ""
    ours = transport.get_extra_info("sockname")
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        path = ours.decode("utf-8", "replace") if isinstance(ours, bytes) else str(ours or "")
        return Peer(None, (path, None), is_secure, is_unix=True, protocol=protocol)
    client = _address(transport.get_extra_info("peername"))
    return Peer(client, _address(ours), is_secure, protocol=protocol)


def _address(name: object) -> Address | None:
    # IPv6 has four parts: flow and scope go beside the address that ASGI wants.
    if isinstance(name, tuple) and len(name) >= 2:
        return (str(name[0]), int(name[1]))
    return None
