"""A process's own membership in a group, for parts of this package that talk through the layer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from channels.kit.types import Message

#: How often the membership is refreshed, in seconds; layers forget one after a day.
REFRESH_SECONDS: Final = 3600.0
#: How long to wait before a layer that failed is tried again.
RETRY_SECONDS: Final = 1.0


async def listen_to_group(
    layer: Any,
    group: str,
    take: Callable[[Message], Awaitable[None]],
    on_failure: Callable[[Exception], None],
    on_joined: Callable[[], None] = lambda: None,
) -> None:
    """Hand each message of a group to `take`, for ever, through failures of the layer and of it.

    Args:
        on_failure: Told before each new attempt.
        on_joined: Called each time that this process has become a member, or is one still.
    """
    channel = ""
    while True:
        try:
            channel = channel or await layer.new_channel(group.rpartition(".")[2])
            await layer.group_add(group, channel)
            on_joined()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    while True:
                        await take(await layer.receive(channel))
        except Exception as error:
            on_failure(error)
            await asyncio.sleep(RETRY_SECONDS)
