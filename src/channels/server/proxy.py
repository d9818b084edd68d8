"""Whom a proxy speaks for: X-Forwarded-For, -Port and -Proto, and where it mounts the application.

A client can send these fields too.  So they are read only if the connection comes from a trusted
proxy, and of several values the last one counts, which that proxy wrote: what stands left of it was
written by the client.  Of several addresses it is the last one that is not a trusted proxy's.

What is not an address, a port, a scheme or a path counts as not sent.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Final, TypeAlias

from channels.exceptions import InvalidOption
from channels.kit.types import Address, Headers
from channels.server.options import ProxyOptions
from channels.server.peer import Peer
from channels.wire.percent import unquote

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECURE: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}
#: A chain of more proxies than this is a client's invention, and each takes 4 µs to look at.
MOST_PROXIES: Final = 50
#: No "//" or "/\" at the start: a browser takes what follows for a host.
_PATH: Final = re.compile(r"/(?![/\\])[^\\?#]*")
#: A longer one is no place of an application, and 16 KiB of escapes take 2 ms to undo.
_MOST_ROOT_PATH_OCTETS: Final = 2048
_ENTRY: Final = re.compile(
    rb"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)"
)
_PORT: Final = re.compile(r"[0-9]{1,5}")
#: An IPv4 address is one of the last 2 ** 32 in this network: `::ffff:10.0.0.1` is 10.0.0.1.
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


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
        self._root_path_header = options.root_path_header.lower().encode()

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, peer: Peer) -> bool:
        """True if this peer's word on its clients is taken."""
        if peer.is_unix:
            return self._unix
        return peer.client is not None and self._trusts_host(peer.client[0].partition("%")[0])

    def _trusts_host(self, host: str) -> bool:
        if self._everyone:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def resolve(self, peer: Peer, headers: Headers) -> Peer:
        """The peer that a trusted proxy speaks for; call it only if `trusts(peer)`."""
        client, is_secure = peer.client, peer.is_secure
        forwarded = self._client(_joined(headers, self._address_header))
        if forwarded is not None:
            host, port = forwarded
            stated = _last(headers, self._port_header)
            client = (host, int(stated) if _PORT.fullmatch(stated) else port)
        scheme = _last(headers, self._proto_header).lower().encode("latin-1")
        return replace(peer, client=client, is_secure=_SECURE.get(scheme, is_secure))

    def root_path(self, headers: Headers) -> str:
        """Where a trusted proxy mounts the application; "" if it does not say, or says no path."""
        value = _last(headers, self._root_path_header)
        if len(value) > _MOST_ROOT_PATH_OCTETS:
            return ""
        path = unquote(value.encode("latin-1"))
        return path if path.isprintable() and _PATH.fullmatch(path) else ""

    def _client(self, entries: bytes) -> Address | None:
        """The nearest address that is not a trusted proxy's, else the farthest that is one.

        If everyone is trusted, it is the first.  An entry that is no address ends the search: what
        stands left of it came through nobody who is known.
        """
        found = None
        if self._everyone:
            return _address(entries.partition(b",")[0])
        for entry in reversed(entries.rsplit(b",", MOST_PROXIES)[-MOST_PROXIES:]):
            address = _address(entry)
            if address is None:
                break
            found = address
            if not self._trusts_host(address[0]):
                break
        return found


def _network(name: str) -> _Network:
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise InvalidOption(
            f"trusted_proxies: {name!r}: expected an address, a network like 10.0.0.0/8, "
            "'unix' or '*'."
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _joined(headers: Headers, name: bytes) -> bytes:
    """The values of a field and of its repetitions as one list, in order."""
    return b",".join(value for key, value in headers if key == name)


def _last(headers: Headers, name: bytes) -> str:
    """The last element of a comma-separated field; "" if there is none."""
    return _joined(headers, name).rpartition(b",")[2].strip().decode("latin-1")


def _address(entry: bytes) -> Address | None:
    """Address and port of `1.2.3.4:5`, `[::1]:5` or an address alone; no port is 0.

    None for anything else, an IPv6 address with a zone too: that is a name of the proxy's own, and
    any text at all may stand in it.
    """
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        return None
    host = (match[1] or match[3] or match[5]).decode()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return (host, int(match[2] or match[4] or 0))
