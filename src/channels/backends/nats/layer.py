"""The layer on NATS, as settings name it."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from typing import Any, Final

from channels.backends.nats.address import parse_addresses
from channels.backends.nats.names import NatsNames, QueuePlan
from channels.backends.nats.options import NatsOptions
from channels.backends.nats.transport import NatsTransport
from channels.exceptions import InvalidChannelLayerError
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer

_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class NatsChannelLayer(NodeChannelLayer):
    """Channels and groups over NATS 2.9 and later.

    Args:
        servers: A URL, or a list of URLs of one cluster: `nats://user:password@host:port`.
        prefix: What all subjects begin with.
        ssl_context: For tls://; None: the system's certificates are trusted.
        credentials: Path of a file with a user's JWT and seed, as `nsc` writes it, or a seed alone.
        config: `NatsOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If a URL, the credentials or another key cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        prefix: str = "asgi",
        *,
        ssl_context: ssl.SSLContext | None = None,
        credentials: str | os.PathLike[str] = "",
        **config: Any,
    ) -> None:
        self.addresses = parse_addresses(servers, ssl_context, os.fspath(credentials))
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidChannelLayerError(
                f"prefix={prefix!r}: expected at most 32 letters, digits, hyphens and underscores."
            )
        self.prefix = prefix
        own, options = split_options(NatsOptions, config, layer=type(self))
        self.nats_options = own
        names = NatsNames(prefix, own, self._plan_of)
        super().__init__(NatsTransport(self.addresses, names), options)

    def _plan_of(self, channel: str) -> QueuePlan:
        """How a channel that no process owns is kept."""
        deliveries = self.node.deliveries
        delivery, ack_wait = deliveries.find(channel), self.nats_options.ack_wait
        if delivery is not None:
            ack_wait = min(ack_wait, max(1.0, delivery.visibility_timeout))
        is_usual = not deliveries.keeps(channel)
        life = self.expiry if is_usual else None if delivery is None else delivery.expiry
        return QueuePlan(self.get_capacity(channel), life, is_usual, ack_wait)
