"""The layer on RabbitMQ, as settings name it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Any, Final

from channels.backends.rabbitmq.address import parse_addresses
from channels.backends.rabbitmq.names import QueueRules, RabbitMQNames
from channels.backends.rabbitmq.options import RabbitMQOptions
from channels.backends.rabbitmq.transport import RabbitMQTransport
from channels.exceptions import InvalidChannelLayerError
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer

#: Names in the broker have 127 characters; a channel's may take 99.
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,24}")
_DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1:5672/"


class RabbitMQChannelLayer(NodeChannelLayer):
    """Channels and groups over RabbitMQ 3.10 and later.

    Args:
        url: `amqp[s]://user:password@host:port/vhost`, with the files of TLS in its query
            (`channels.backends.rabbitmq.address`); or a list of URLs, of one cluster: if one cannot
            be reached the next is tried.
        prefix: What all names in the virtual host begin with.
        ssl_context: For amqps; None: what the URL says, or the system's certificates.
        config: `RabbitMQOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If the URL or another key cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    def __init__(
        self,
        url: str | Sequence[str] = _DEFAULT_URL,
        prefix: str = "asgi",
        *,
        ssl_context: ssl.SSLContext | None = None,
        **config: Any,
    ) -> None:
        self.addresses = parse_addresses(url, ssl_context)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidChannelLayerError(
                f"prefix={prefix!r}: expected at most 24 letters, digits and _ . : -"
            )
        self.prefix = prefix
        own, options = split_options(RabbitMQOptions, config, layer=type(self))
        self.rabbitmq_options = own
        names = RabbitMQNames(prefix, own, self._rules_of)
        super().__init__(RabbitMQTransport(self.addresses, names), options)

    def _rules_of(self, channel: str) -> QueueRules:
        expiry = None if self.node.deliveries.keeps(channel) else self.expiry
        return QueueRules(self.get_capacity(channel), expiry)
