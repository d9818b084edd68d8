"""What every channel layer is: six verbs, and the rules on names and capacity.

Third-party layers subclass `BaseChannelLayer` too, so its names and errors are part of the
compatible API.  Our own backends build on `channels.layers.process.layer.NodeChannelLayer`
instead, which implements all of this once on top of a small `Transport`.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from channels.kit import names
from channels.kit.printable import printable
from channels.kit.types import Message

#: Patterns in order of precedence, and how many unread messages a matching channel may hold.
Capacities = list[tuple[re.Pattern[str], int]]


def compile_pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """A glob of channels' names as an expression; what is compiled already stays as it is."""
    return pattern if isinstance(pattern, re.Pattern) else re.compile(fnmatch.translate(pattern))


class BaseChannelLayer:
    """The contract of a channel layer.

    Delivery is at most once, unless a layer promises more.

    Args:
        expiry: Seconds after which a message that nobody took is dropped.
        capacity: How many unread messages a channel may hold.
        channel_capacity: Exceptions from `capacity`: a glob or a compiled pattern to a number; the
            first that matches the channel's name holds.
    """

    MAX_NAME_LENGTH: ClassVar[int] = names.MAX_NAME_LENGTH
    channel_name_regex: ClassVar[re.Pattern[str]] = names.CHANNEL_NAME
    group_name_regex: ClassVar[re.Pattern[str]] = names.GROUP_NAME
    invalid_name_error: ClassVar[str] = (
        "{} name must be a valid unicode string with length < "
        f"{names.MAX_NAME_LENGTH} containing only ASCII alphanumerics, hyphens, underscores, or "
        "periods."
    )

    #: Optional parts of the contract that this layer has: "groups", "flush".
    extensions: ClassVar[list[str]] = []
    #: The ROUTING key of its configuration: it has one if its workers run the Channels 1 way.
    routing: Any = None

    def __init__(
        self,
        expiry: float = 60,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
    ) -> None:
        self.expiry = expiry
        self.capacity = capacity
        self.channel_capacity: Any = self.compile_capacities(channel_capacity or {})

    def compile_capacities(
        self,
        channel_capacity: Mapping[Any, int] | Iterable[tuple[str | re.Pattern[str], int]],
    ) -> Capacities:
        """The patterns as compiled expressions; what is compiled already stays as it is."""
        pairs = (
            channel_capacity.items() if isinstance(channel_capacity, Mapping) else channel_capacity
        )
        return [(compile_pattern(pattern), limit) for pattern, limit in pairs]

    def get_capacity(self, channel: str) -> int:
        """How many unread messages this channel may hold."""
        if not self.channel_capacity:
            return self.capacity
        if isinstance(self.channel_capacity, Mapping):
            self.channel_capacity = self.compile_capacities(self.channel_capacity)
        for pattern, limit in self.channel_capacity:
            if pattern.match(channel):
                return int(limit)
        return self.capacity

    def match_type_and_length(self, name: object) -> bool:
        """True if `name` is a string that is short enough for a name."""
        return isinstance(name, str) and len(name) < self.MAX_NAME_LENGTH

    def require_valid_channel_name(self, name: str, receive: bool = False) -> bool:
        """True.

        Args:
            receive: Whether it names what to read from: then nothing may follow the "!".

        Raises:
            TypeError: If `name` cannot name a channel.
        """
        if not self.match_type_and_length(name) or not self.channel_name_regex.match(name):
            raise TypeError(self._name_error("Channel", name))
        if receive and "!" in name and not name.endswith("!"):
            raise TypeError(
                f"Specific channel names in receive() must end at the !: found {name!r}."
            )
        return True

    def require_valid_group_name(self, name: str) -> bool:
        """True.

        Raises:
            TypeError: If `name` cannot name a group.
        """
        if not self.match_type_and_length(name) or not self.group_name_regex.match(name):
            raise TypeError(self._name_error("Group", name))
        return True

    def _name_error(self, kind: str, name: object) -> str:
        return f"{self.invalid_name_error.format(kind)} Found {printable(repr(name))}."

    def valid_channel_name(self, name: str, receive: bool = False) -> bool:
        """Deprecated: `require_valid_channel_name`."""
        _warn_renamed("valid_channel_name", "require_valid_channel_name")
        return self.require_valid_channel_name(name, receive=receive)

    def valid_group_name(self, name: str) -> bool:
        """Deprecated: `require_valid_group_name`."""
        _warn_renamed("valid_group_name", "require_valid_group_name")
        return self.require_valid_group_name(name)

    def valid_channel_names(self, names: list[str], receive: bool = False) -> bool:
        """True if all of a non-empty list can name channels.

        Raises:
            TypeError: If one of them cannot, or there is no list, or nothing in it.
        """
        if not isinstance(names, list) or not names:
            raise TypeError(f"Channel names must be a non-empty list: found {names!r}.")
        return all(self.require_valid_channel_name(name, receive=receive) for name in names)

    def non_local_name(self, name: str) -> str:
        """The name up to and including its "!"; a name without one is returned whole."""
        return names.non_local_name(name)

    async def send(self, channel: str, message: Message) -> None:
        """Send a message to one channel.

        Raises:
            ChannelFull: If the channel holds its capacity of unread messages.
        """
        raise NotImplementedError(_MISSING.format("send"))

    async def receive(self, channel: str) -> Message:
        """The next message of a channel, waiting for one if need be; each goes to one reader."""
        raise NotImplementedError(_MISSING.format("receive"))

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name for a channel that only this process reads."""
        raise NotImplementedError(_MISSING.format("new_channel"))

    async def flush(self) -> None:
        """Forget all messages and groups."""
        raise NotImplementedError(_MISSING.format("flush"))

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group; adding it again refreshes its membership."""
        raise NotImplementedError(_MISSING.format("group_add"))

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; nothing happens if it is no member."""
        raise NotImplementedError(_MISSING.format("group_discard"))

    async def group_send(self, group: str, message: Message) -> None:
        """Send a message to every member of a group; full members are passed over."""
        raise NotImplementedError(_MISSING.format("group_send"))


_MISSING = "A channel layer must implement {}()."


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(
        f"{old}() is deprecated: call {new}().", category=DeprecationWarning, stacklevel=3
    )
