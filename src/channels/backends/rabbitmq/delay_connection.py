"""The connection over which a process moves delayed messages on, beside the one for all else.

A process that hangs keeps what the broker has given it until the broker gives up its connection:
that is two to three heartbeats after its last sign.  Nothing else takes a message from its hand.
For another process to have it within five seconds the heartbeat must be one second.  On the
connection for all else that would be too short: a loop that is blocked for three seconds would lose
it.  Here a break only means that another process moves these messages on.

A process that goes on after such a pause lets go of what it had in hand (`AmqpConnection.holds`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from channels.backends.rabbitmq.address import Address
from channels.backends.rabbitmq.channel import Broken
from channels.backends.rabbitmq.connection import AmqpConnection, connect
from channels.backends.rabbitmq.declarer import Declarer
from channels.backends.rabbitmq.delays import Pump

logger = logging.getLogger("channels.layers")

#: Seconds; the shortest that AMQP can say.
HEARTBEAT: Final = 1
_CONNECT_SECONDS: Final = 8.0
#: Seconds between attempts to connect.
_AGAIN_SECONDS: Final = 0.5
_CHANNEL: Final = 1


class DelayConnection:
    """Has a pump work while the other connection stands.

    Args:
        spawn: Starts a task of the transport.
    """

    def __init__(self, pump: Pump, spawn: Callable[..., asyncio.Task[Any]]) -> None:
        self._pump = pump
        self._spawn = spawn
        self._connection: AmqpConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    def open(self, address: Address, declarer: Declarer) -> None:
        """Connected: connect here as well."""
        work = self._run(address, declarer)
        self._task = self._spawn(work, name="connection for delayed messages")

    def shut(self) -> None:
        """The other connection broke, over which these messages go into their channels."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._let_go()

    async def quiesce(self) -> None:
        """Finish what is being put into channels, give back the rest, and close."""
        self._is_closing = True
        await self._pump.quiesce()
        if self._connection is not None:
            await self._connection.close()

    def abandon(self) -> None:
        """As `Transport.abandon`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.fail(Broken("given up"))
        self._pump.shut()

    async def _run(self, address: Address, declarer: Declarer) -> None:
        is_told = False
        while not self._is_closing:
            try:
                connection = await connect(address, HEARTBEAT, _CONNECT_SECONDS)
            except (Broken, OSError) as error:
                # The other stands, so this is no outage: the broker bounds connections, for one.
                if not is_told:
                    logger.warning("Delayed messages wait for a second connection: %s", error)
                    is_told = True
            else:
                is_told = False
                self._connection = connection
                self._pump.open(connection.channel(_CHANNEL), declarer, connection.holds)
                await asyncio.wait([connection.ended])
                self._let_go()
            await asyncio.sleep(_AGAIN_SECONDS)
