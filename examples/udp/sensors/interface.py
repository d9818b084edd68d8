"""An interface server for datagrams: each becomes a message of a channel, replies are datagrams.

It holds the socket and runs no consumer.  Like every network on the way it may drop a datagram:
when the workers do not keep up, or the layer is out of reach.  It counts them.
"""

import asyncio
import logging
from typing import Any

from channels.exceptions import ChannelFull, ChannelLayerUnavailable

logger = logging.getLogger("sensors.interface")

#: Where workers find the datagrams.
CHANNEL = "udp.receive"
#: Datagrams that are being handed to the layer; more are dropped.
MOST_UNDER_WAY = 1000


class UdpInterface(asyncio.DatagramProtocol):
    """Carries datagrams into a channel layer, and replies out of it.

    Args:
        reply_channel: A channel of this process, by the layer's `new_channel()`.
    """

    transport: asyncio.DatagramTransport

    def __init__(self, layer: Any, reply_channel: str) -> None:
        self.layer = layer
        self.reply_channel = reply_channel
        self.dropped = 0
        self._under_way: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if len(self._under_way) >= MOST_UNDER_WAY:
            self.dropped += 1
            return
        task = asyncio.create_task(self._hand_on(data, list(address[:2])))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def error_received(self, error: OSError) -> None:
        """A client has gone: nobody is told of it in this protocol."""

    async def _hand_on(self, data: bytes, client: list[Any]) -> None:
        message = {"type": CHANNEL, "data": data, "client": client}
        try:
            await self.layer.send(CHANNEL, {**message, "reply_channel": self.reply_channel})
        except (ChannelFull, ChannelLayerUnavailable) as error:
            self.dropped += 1
            if self.dropped % 1000 == 1:
                logger.warning("%d datagrams were dropped: %s", self.dropped, error)

    async def send_replies(self) -> None:
        """Send what workers reply, for ever."""
        while True:
            reply = await self.layer.receive(self.reply_channel)
            try:
                self.transport.sendto(reply["data"], tuple(reply["client"]))
            except (KeyError, TypeError, ValueError) as error:
                logger.error("A reply that is no datagram was dropped: %r", error)


async def serve(layer: Any, host: str, port: int) -> None:
    """Serve until cancelled."""
    reply_channel = await layer.new_channel("udp.send")
    loop = asyncio.get_running_loop()
    transport, interface = await loop.create_datagram_endpoint(
        lambda: UdpInterface(layer, reply_channel), local_addr=(host, port)
    )
    logger.info("Listening for datagrams at %s:%d", *transport.get_extra_info("sockname")[:2])
    try:
        await interface.send_replies()
    finally:
        transport.close()
        await layer.close()
