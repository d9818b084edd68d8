"""The options of every layer that is built on a node, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from channels.exceptions import InvalidChannelLayerError
from channels.kit.limits import KIB
from channels.kit.options import check_options, option
from channels.layers.seal import check_secrets

T = TypeVar("T")
#: What a channel holds unless `capacity_bytes` is set: so many of the largest messages, and all of
#: `capacity` if they are no larger than this.
_LARGEST_MESSAGES: Final = 4
_ORDINARY_MESSAGE_BYTES: Final = 128 * KIB


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What CONFIG may say to any layer of ours, beside its backend's own keys."""

    expiry: float = option(
        60.0, unit="seconds", minimum=0.001, help="an unread message is dropped after this"
    )
    group_expiry: float = option(
        86400.0,
        unit="seconds",
        minimum=0.001,
        help="membership ends after this, or up to a quarter later, unless refreshed; not that of "
        "a consumer that runs",
    )
    capacity: int = option(
        100, unit="messages", minimum=1, help="unread messages that a channel may hold"
    )
    capacity_bytes: int | None = option(
        None,
        unit="bytes",
        minimum=1,
        none="four messages of max_message_bytes, or capacity messages of 128 KiB if that is more",
        help="unread messages, as they are encoded, that a consumer or another channel of one "
        "process may hold; a single larger one still fits",
    )
    #: Glob or compiled pattern -> capacity; the first match holds.
    channel_capacity: Mapping[Any, int] | None = None
    #: "msgpack", "json", or what was registered.
    serializer_format: str = "msgpack"
    #: Secrets; the first seals, all open; None or none: nothing is sealed.
    symmetric_encryption_keys: Sequence[str | bytes] | None = field(default=None, repr=False)
    max_message_bytes: int = option(
        4 * 1024 * 1024, unit="bytes", minimum=1024, help="largest encoded message"
    )
    send_timeout: float = option(
        2.0, unit="seconds", minimum=0.01, help="wait for a backend that is out of reach"
    )
    linger: float = option(
        2.0, unit="seconds", minimum=0.0, help="a group stays joined so long after its last member"
    )
    replay_messages: int = option(
        1000, unit="messages", minimum=1, help="sends that may wait for a backend out of reach"
    )
    replay_bytes: int = option(
        8 * 1024 * 1024, unit="bytes", minimum=1024, help="bytes that these sends may hold"
    )
    max_delay: float = option(
        604_800.0, unit="seconds", minimum=0.0, help="longest `delay` of a send"
    )
    max_delayed: int = option(
        10_000,
        unit="messages",
        minimum=0,
        help="delayed messages that may be pending in the backend, and in each process",
    )
    #: Pattern of channel names -> "at-most-once", "at-least-once", or a dict: `Delivery`.
    delivery: Mapping[Any, Any] | None = None

    def bytes_of(self, capacity: int) -> int:
        """How many bytes a channel of this process with this capacity may hold unread."""
        if self.capacity_bytes is not None:
            return self.capacity_bytes
        return max(_LARGEST_MESSAGES * self.max_message_bytes, capacity * _ORDINARY_MESSAGE_BYTES)

    def __post_init__(self) -> None:
        check_options(self)
        if self.symmetric_encryption_keys is not None:
            check_secrets(self.symmetric_encryption_keys)


def split_options(
    table: type[T], config: Mapping[str, Any], *, layer: type
) -> tuple[T, LayerOptions]:
    """The options of a backend, which `table` declares, and those of every layer.

    Args:
        layer: For the error, which names its constructor's parameters too.

    Raises:
        InvalidChannelLayerError: If CONFIG has a key that none of them bears.
        InvalidOption: If a value is out of bounds.
    """
    names = {declared.name for declared in fields(table)}  # type: ignore[arg-type]
    general = {declared.name for declared in fields(LayerOptions)}
    if unknown := sorted(config.keys() - names - general):
        raise InvalidChannelLayerError(
            f"{layer.__name__} does not know {', '.join(unknown)}. Its own options are "
            f"{', '.join(sorted((names | _parameters(layer)) - general))}; those of every layer "
            f"are {', '.join(sorted(general))}."
        )
    own = {name: value for name, value in config.items() if name in names}
    rest = {name: value for name, value in config.items() if name not in names}
    return table(**own), LayerOptions(**rest)


def _parameters(layer: type) -> set[str]:
    """The names of the parameters that its constructor and those above take beside `**config`."""
    found: set[str] = set()
    for kind in layer.__mro__:
        parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
        if "__init__" in vars(kind) and any(each.kind is each.VAR_KEYWORD for each in parameters):
            found |= {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    return found - {"self", "args"}
