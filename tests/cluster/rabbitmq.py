"""What an operator does to the queues of a RabbitMQ, over a connection of their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiormq
from aiormq.abc import AbstractChannel

from channels.layers import RabbitMQChannelLayer


@contextlib.asynccontextmanager
async def operating(port: int) -> AsyncIterator[AbstractChannel]:
    """An AMQP channel."""
    async with aiormq.connect(f"amqp://guest:guest@127.0.0.1:{port}/") as connection:
        yield await connection.channel()


async def messages_in(layer: RabbitMQChannelLayer, queue: str) -> int | None:
    """How many messages lie unread in a queue of this layer; None: there is no such queue."""
    try:
        async with operating(layer.addresses[0].port) as channel:
            found = await channel.queue_declare(f"{layer.prefix}.{queue}", passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    return found.message_count


async def delete(layer: RabbitMQChannelLayer, queue: str) -> None:
    async with operating(layer.addresses[0].port) as channel:
        await channel.queue_delete(f"{layer.prefix}.{queue}")
