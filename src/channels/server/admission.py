"""What one client address may have: connections, WebSockets, and handshakes in a time.

An IPv6 client has a whole network, so its first 64 bits are its address here.  Where proxies are
trusted, WebSockets and handshakes are counted for the client that they speak for, and their own
connections are not counted.  Clients on a Unix socket that nobody speaks for have no address, and
no limit.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from channels.exceptions import RemoteProtocolError
from channels.kit.allowance import RATE_SECONDS, spend
from channels.kit.limits import Limits
from channels.kit.types import Address
from channels.server.cuts import cut_off
from channels.server.peer import Peer

#: Addresses whose handshakes are remembered; the one that came longest ago is forgotten.
MOST_ADDRESSES: Final = 65_536
TOO_MANY_REQUESTS: Final = 429


def network_of(client: Address | None) -> str:
    """What is counted as one client; empty for none."""
    if client is None:
        return ""
    host = client[0].partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # What a trusted proxy wrote, "unknown" for example.
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


class Admission:
    """Counts by client address, for the limits that are set; without any it does nothing.

    Args:
        trusts: Whether a peer is a trusted proxy, which stands for many clients.
    """

    def __init__(self, limits: Limits, trusts: Callable[[Peer], bool]) -> None:
        self._most_connections = limits.max_connections_per_address
        self._most_websockets = limits.max_websockets_per_address
        self._rate = limits.max_handshake_rate
        self._trusts = trusts
        self._connections: Counter[str] = Counter()
        self._websockets: Counter[str] = Counter()
        #: Open connection, as an object -> what it counts for in the two above.
        self._peers: dict[object, str] = {}
        self._clients: dict[object, str] = {}
        #: Client -> when its allowance is whole again, by the monotonic clock.
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def connect(self, connection: object, peer: Peer) -> bool:
        """Count a connection; False if its peer has too many, which is counted and logged."""
        if self._most_connections is None or self._trusts(peer):
            return True
        network = network_of(peer.client)
        if not network:
            return True
        if self._connections[network] >= self._most_connections:
            why = f"its address has {self._most_connections} connections already"
            cut_off("connections_per_address", peer.client, why)
            return False
        self._connections[network] += 1
        self._peers[connection] = network
        return True

    def open_websocket(self, connection: object, client: Address | None) -> None:
        """Count a WebSocket that is asked for.

        Raises:
            RemoteProtocolError: With 429, if its client has too many, or asks too often.
        """
        if self._most_websockets is None and self._rate is None:
            return
        network = network_of(client)
        if not network:
            return
        if self._rate is not None and self._is_over_rate(network, self._rate):
            raise RemoteProtocolError(
                f"Over {self._rate:g} WebSocket handshakes a second from this address.",
                status=TOO_MANY_REQUESTS,
            )
        if self._most_websockets is None:
            return
        if self._websockets[network] >= self._most_websockets:
            raise RemoteProtocolError(
                f"This address has {self._most_websockets} WebSockets already.",
                status=TOO_MANY_REQUESTS,
            )
        self._websockets[network] += 1
        self._clients[connection] = network

    def leave(self, connection: object) -> None:
        """The connection is gone, and its WebSocket with it."""
        for counts, of in ((self._connections, self._peers), (self._websockets, self._clients)):
            network = of.pop(connection, None)
            if network is None:
                continue
            counts[network] -= 1
            if not counts[network]:
                del counts[network]

    def _is_over_rate(self, network: str, rate: float) -> bool:
        now = time.monotonic()
        whole_at = spend(
            self._whole_at.get(network, now), now, 1 / rate, max(RATE_SECONDS, 1 / rate)
        )
        if whole_at is None:
            return True
        self._whole_at[network] = whole_at
        self._whole_at.move_to_end(network)
        if len(self._whole_at) > MOST_ADDRESSES:
            self._whole_at.popitem(last=False)
        return False
