"""The channel layer as ASGI 1 had it: blocking verbs over a layer of today.

Names: a channel of one reader was made by a pattern that ends in "!" or "?".  Here
`new_channel("http.response!")` gives a channel of this process, and `new_channel("body?")` one that
any process may read; both forms are opaque.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Final, TypeVar

from asgiref.sync import async_to_sync

from channels import exceptions
from channels.kit.types import Message
from channels.layers.names import local_part

T = TypeVar("T")

#: How long `receive(..., block=True)` waits before it says that there is nothing.
BLOCK_SECONDS: Final = 5.0
#: What a look into a broker's queues may take before they count as empty.
LOOK_SECONDS: Final = 0.1
#: Turns of the loop within which a layer in this process has handed over what it has.
_TURNS: Final = 3


class Asgi1Layer:
    """ASGI 1's channel layer.

    Every method blocks its thread, on which no event loop may run.

    Args:
        layer: The layer of today that carries the messages.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = exceptions.ChannelFull
    MessageTooLarge = exceptions.MessageTooLarge

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def is_in_process(self) -> bool:
        """True if no other process sees what is sent."""
        capabilities = getattr(self.layer, "capabilities", None)
        return capabilities is not None and bool(capabilities.is_direct)

    def send(self, channel: str, message: Message) -> None:
        """Send a message to one channel.

        Raises:
            TypeError: If the name breaks the rules, or the message is no dict.
            ChannelFull: If the channel holds its capacity of unread messages.
            MessageTooLarge: If the message is over the layer's bound.
        """
        _require_dict(message)
        self._run(lambda: self.layer.send(channel, message))

    def receive(
        self, channels: Sequence[str], block: bool = False, *, timeout: float = BLOCK_SECONDS
    ) -> tuple[str | None, Message | None]:
        """The next message of one of some channels, with the channel's name; or (None, None).

        Args:
            block: Whether to wait for one.
            timeout: Seconds to wait at most.  Without `block` a layer in this process is looked at
                and not waited for, and a broker has 0.1 seconds to answer.
        """
        look = 0.0 if self.is_in_process else LOOK_SECONDS
        seconds = timeout if block else look
        names = list(dict.fromkeys(channels))
        return self._run(lambda: self._receive(names, seconds), is_bounded=False)

    def receive_many(
        self, channels: Sequence[str], block: bool = False
    ) -> tuple[str | None, Message | None]:
        """As `receive`, under its older name."""
        return self.receive(channels, block)

    def new_channel(self, pattern: str) -> str:
        """A channel's name that nobody has yet.

        Args:
            pattern: Its beginning.  With "?" at the end any process may read the channel, with "!"
                or neither this process alone.
        """
        if pattern.endswith("?"):
            return f"{pattern[:-1]}.{local_part()}"
        name: str = self._run(lambda: self.layer.new_channel(pattern.removesuffix("!")))
        return name

    def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group; again: refresh its membership."""
        self._run(lambda: self.layer.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; nothing happens if it is no member."""
        self._run(lambda: self.layer.group_discard(group, channel))

    def send_group(self, group: str, message: Message) -> None:
        """Send a message to every member of a group; full ones are passed over.

        Raises:
            TypeError: If the name breaks the rules, or the message is no dict.
            MessageTooLarge: If the message is over the layer's bound.
        """
        _require_dict(message)
        self._run(lambda: self.layer.group_send(group, message))

    def flush(self) -> None:
        """Forget all messages and groups, those of other processes too."""
        self._run(self.layer.flush)

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], *, is_bounded: bool = True) -> T:
        """Await `work` where the layer is, and give what it gives.

        Args:
            is_bounded: Whether the layer itself bounds its time.
        """
        blocking = getattr(self.layer, "sync", None)
        if blocking is None:
            # Another package's layer has no thread of its own: asgiref finds a loop, or makes one.
            return async_to_sync(_give)(work)
        done: T = blocking.call(work) if is_bounded else blocking.run(work)
        return done

    async def _receive(
        self, channels: list[str], seconds: float
    ) -> tuple[str | None, Message | None]:
        """Read all channels at once, and take from one."""
        reads: list[asyncio.Task[None]] = []
        taken: list[tuple[str, Message]] = []

        async def read(channel: str) -> None:
            message = await self.layer.receive(channel)
            taken.append((channel, message))
            # Before another task has its turn: a read that is cancelled takes nothing.
            for other in reads:
                if other is not asyncio.current_task():
                    other.cancel()

        for channel in channels:
            reads.append(asyncio.create_task(read(channel)))
        try:
            await _first_of(reads, seconds)
        finally:
            for task in reads:
                task.cancel()
            if reads:
                await asyncio.wait(reads)
        if taken:
            return taken[0]
        for task in reads:
            if not task.cancelled():
                task.result()
        return None, None


async def _give(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await work()


async def _first_of(reads: list[asyncio.Task[None]], seconds: float) -> None:
    if not seconds:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    elif reads:
        await asyncio.wait(reads, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _require_dict(message: Any) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"A message must be a dict: found {type(message).__name__}.")
