"""The layer on PostgreSQL, as settings name it."""

from __future__ import annotations

from typing import Any

from channels.backends.postgres.address import Place, Places
from channels.backends.postgres.atomic import AtomicSender, CallerConnection
from channels.backends.postgres.options import PostgresOptions
from channels.backends.postgres.store import PostgresStore
from channels.backends.postgres.transport import TableTransport
from channels.exceptions import InvalidChannelLayerError
from channels.kit.types import Message
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer


class PostgresChannelLayer(NodeChannelLayer):
    """Channels and groups in a PostgreSQL database.

    Args:
        dsn: Where it is: a DSN, or libpq's parameters by name.
        listen_dsn: The same for the connection that listens; None: `dsn`.
        database: In place of `dsn`: an alias of Django's DATABASES; "default" if neither is given.
        prefix: What keeps layers in the same tables apart.
        config: `PostgresOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If a key or a DSN cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    def __init__(
        self,
        dsn: Place | None = None,
        listen_dsn: Place | None = None,
        database: str | None = None,
        prefix: str = "asgi",
        **config: Any,
    ) -> None:
        if not isinstance(prefix, str):
            raise InvalidChannelLayerError(f"prefix={prefix!r}: expected a text.")
        own, options = split_options(PostgresOptions, config, layer=type(self))
        self.postgres_options = own
        store = PostgresStore(Places(dsn, listen_dsn, database), own, prefix)
        transport = TableTransport(store, own, prefix)
        super().__init__(transport, options)
        self._atomic = AtomicSender(
            transport, store.schema, self.node, lambda: self.expiry, options.max_delayed
        )

    def atomic_send(
        self,
        connection: CallerConnection,
        channel: str,
        message: Message,
        *,
        delay: float = 0.0,
    ) -> None:
        """Send to one channel as part of the transaction that is open on a connection.

        It is sent when that commits, and never if it is rolled back.  Blocks for a statement on
        that connection.  `expiry` counts from this call.

        Args:
            connection: Django's, for the database that the layer is in, or psycopg's.
            delay: As for `send`, counted from this call; within five seconds of it, or of the
                commit if that comes later.

        Raises:
            TypeError: If the name breaks the rules, or the message holds what cannot be encoded.
            ValueError: If the delay is negative, not finite, or over `max_delay`.
            ChannelFull: If the channel holds its capacity, or `max_delayed` messages are pending;
                several transactions at a time may exceed both.
            MessageTooLarge: If it is over `max_message_bytes` once encoded.
            InvalidChannelLayerError: If it is a connection to another database.
        """
        self.require_valid_channel_name(channel)
        if delay:
            self._check_delay(delay)
        self._atomic.send(connection, channel, self.node.codec.encode(message), delay)

    def atomic_group_send(self, connection: CallerConnection, group: str, message: Message) -> None:
        """Send to a group as part of the transaction that is open on a connection.

        As `atomic_send`, but never `ChannelFull`.
        """
        self.require_valid_group_name(group)
        self._atomic.group_send(connection, group, self.node.codec.encode(message))
