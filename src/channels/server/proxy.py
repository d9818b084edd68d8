"""Whom a proxy speaks for: X-Forwarded-For, -Port and -Proto.

A client can send these fields too.  So they are read only if the connection comes from a trusted
proxy, and of several addresses the last one counts that is not itself a trusted proxy's: what
stands left of it was written by the client.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Final, TypeAlias

from channels.exceptions import InvalidOption
from channels.kit.types import Address, Headers
from channels.server.options import ProxyOptions
from channels.server.peer import Peer

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECURE: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}


class Proxies:
    """The proxies that are trusted.

    Raises:
        InvalidOption: If an entry is neither an address, a network, "unix" nor "*".
    """

    def __init__(self, options: ProxyOptions) -> None:
        names = set(options.trusted_proxies)
        self._everyone = "*" in names
        self._unix = "unix" in names or self._everyone
        self._networks = [_network(name) for name in sorted(names - {"*", "unix"})]
        self._address_header = options.address_header.lower().encode()
        self._port_header = options.port_header.lower().encode()
        self._proto_header = options.proto_header.lower().encode()

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, peer: Peer) -> bool:
        """True if this peer's word on its clients is taken."""
        if peer.is_unix:
            return self._unix
        return peer.client is not None and self._trusts_host(peer.client[0])

    def _trusts_host(self, host: str) -> bool:
        if self._everyone:
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def resolve(self, peer: Peer, headers: Headers) -> Peer:
        """The peer that a trusted proxy speaks for; call it only if `trusts(peer)`."""
        client, is_secure = peer.client, peer.is_secure
        host = self._client_host(_values(headers, self._address_header))
        if host is not None:
            client = _split_port(host, _values(headers, self._port_header))
        schemes = _values(headers, self._proto_header)
        if schemes:
            is_secure = _SECURE.get(schemes[0].lower(), is_secure)
        return replace(peer, client=client, is_secure=is_secure)

    def _client_host(self, hosts: list[bytes]) -> str | None:
        found = None
        for entry in reversed(hosts):
            found = entry.decode("latin-1")
            if not self._trusts_host(_without_port(found)[0]):
                return found
        return found


def _network(name: str) -> _Network:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise InvalidOption(
            f"trusted_proxies: {name!r}: expected an address, a network like 10.0.0.0/8, "
            "'unix' or '*'."
        ) from None


def _values(headers: Headers, name: bytes) -> list[bytes]:
    """The elements of a comma-separated field, those of repeated fields in order."""
    found = b",".join(value for key, value in headers if key == name)
    return [part for part in (part.strip() for part in found.split(b",")) if part]


def _split_port(entry: str, ports: list[bytes]) -> Address:
    host, port = _without_port(entry)
    if ports and ports[0].isdigit() and len(ports[0]) <= 5:
        port = int(ports[0])
    return (host, port)


def _without_port(entry: str) -> tuple[str, int]:
    """Address and port of `1.2.3.4:5`, `[::1]:5` or an address alone; no port is 0."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        host, port = entry, ""
    return host, int(port) if port.isdigit() and port.isascii() and len(port) <= 5 else 0
