"""Messages to bytes and back, by a serializer that has a name.

The same codec serves every layer, the in-memory one included, so that a message which could not
cross a process boundary fails in development already.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

import msgpack

from channels.exceptions import (
    ChannelsError,
    InvalidChannelLayerError,
    MessageNotADict,
    MessageTooLarge,
)
from channels.kit.tracing import TRACE_KEY, tracing
from channels.kit.types import Message

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
#: What MessagePack never uses: octets that begin with it are no message.
_NO_MESSAGE: Final = b"\xc1"
_COLLECTIONS: Final = (set, frozenset, deque)

logger = logging.getLogger("channels.layers")


class Serializer(Protocol):
    """Turns a message to bytes and back."""

    def dumps(self, message: Message) -> bytes:
        """The message as bytes; TypeError, ValueError or OverflowError for what it cannot carry."""

    def loads(self, data: bytes) -> Message:
        """The message of these bytes; any error counts as an undecodable message."""


class MsgpackSerializer:
    """The default: all of JSON, and bytes.  Tuples arrive as lists."""

    def dumps(self, message: Message) -> bytes:
        # `packb`, which hands on any option, takes 0.3 µs more.
        data: bytes = msgpack.Packer(use_bin_type=True).pack(message)
        return data

    def loads(self, data: bytes) -> Message:
        try:
            message: Message = msgpack.unpackb(data, raw=False, strict_map_key=False)
        except TypeError:
            # A key that was a tuple came as a list, which can be none.
            whole = msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=False)
            message = _with_lists(whole)
        return message


def _with_lists(value: Any) -> Any:
    """The same with lists for tuples, but for those in keys."""
    if isinstance(value, dict):
        return {key: _with_lists(part) for key, part in value.items()}
    return [_with_lists(part) for part in value] if isinstance(value, tuple) else value


class JsonSerializer:
    """For brokers that other programs read.  No bytes; keys arrive as strings."""

    def dumps(self, message: Message) -> bytes:
        return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()

    def loads(self, data: bytes) -> Message:
        message: Message = json.loads(data)
        return message


class CopiedMessage(bytes):
    """Goes where an encoded message goes; its octets only say how much memory it may take."""

    message: Message


class InProcessSerializer(MsgpackSerializer):
    """The in-memory layer's own.

    Users of upstream's in-memory layer, which copies messages, send objects in tests and in
    development.  Here they arrive too: what MessagePack cannot carry (dates, decimals, sets, model
    instances, integers of more than 64 bits) is copied by `copy.deepcopy` when it is sent and again
    for each decoding.  One line per type in the log says that no layer which spans processes would
    take it.  No octets stand for an object: what a client has sent is data.
    """

    #: Types that were told of already; some code makes types as it runs.
    _MOST_TOLD: ClassVar[int] = 100
    _told: ClassVar[set[type]] = set()

    def dumps(self, message: Message) -> bytes:
        try:
            return super().dumps(message)
        except (TypeError, OverflowError):
            try:
                return self._copied(message)
            except Exception as error:
                raise TypeError(f"it cannot be copied: {error}") from error

    def loads(self, data: bytes) -> Message:
        if isinstance(data, CopiedMessage):
            return copy.deepcopy(data.message)
        return super().loads(data)

    def _copied(self, message: Message) -> CopiedMessage:
        packer = msgpack.Packer(use_bin_type=True, default=self._measured)
        copied = CopiedMessage(_NO_MESSAGE + packer.pack(message))
        copied.message = copy.deepcopy(message)
        return copied

    def _measured(self, value: Any) -> bytes:
        """About as many octets as a value takes that MessagePack cannot carry."""
        kind = type(value)
        if kind not in self._told and len(self._told) < self._MOST_TOLD:
            self._told.add(kind)
            logger.warning(
                "A message holds a %s.%s. The in-memory layer copies it, but a layer that spans "
                "processes refuses it: convert it first, to a str for instance.",
                kind.__module__,
                kind.__qualname__,
            )
        seen: set[int] = set()

        def parts(value: Any) -> Any:
            if id(value) in seen:
                return None
            seen.add(id(value))
            # By its type: isinstance() would make a lazy object of Django's query the database.
            if issubclass(type(value), _COLLECTIONS):
                return list(value)
            attributes = getattr(value, "__dict__", None)
            return attributes if type(attributes) is dict else bytes(sys.getsizeof(value))

        measured: bytes = msgpack.Packer(use_bin_type=True, default=parts).pack(value)
        return measured


_serializers: dict[str, Callable[[], Serializer]] = {
    "msgpack": MsgpackSerializer,
    "json": JsonSerializer,
}


def register_serializer(name: str, factory: Callable[[], Serializer]) -> None:
    """Make a serializer known by the name that `serializer_format` in CONFIG gives."""
    _serializers[name] = factory


class UndecodableMessage(ChannelsError, ValueError):
    """Bytes that this codec cannot read: another format, or damage."""


class Codec:
    """Messages to bytes and back, for one layer.

    Args:
        serializer_format: The name of a registered serializer.
        max_bytes: Largest encoded message.
        serializer: One that is not registered, in the place of `serializer_format`.

    Raises:
        InvalidChannelLayerError: For an unknown format.
    """

    def __init__(
        self,
        serializer_format: str = "msgpack",
        *,
        max_bytes: int = MAX_MESSAGE_BYTES,
        serializer: Serializer | None = None,
    ) -> None:
        if serializer is None:
            if serializer_format not in _serializers:
                raise InvalidChannelLayerError(
                    f"serializer_format={serializer_format!r} is not registered: expected one of "
                    f"{', '.join(sorted(_serializers))}."
                )
            serializer = _serializers[serializer_format]()
        self._serializer = serializer
        self.max_bytes = max_bytes

    def encode(self, message: Message) -> bytes:
        """The message as bytes.

        Raises:
            MessageNotADict: If it is no dict.
            TypeError: If it holds what the serializer cannot carry; says where.
            MessageTooLarge: If it is over `max_bytes`.
        """
        if not isinstance(message, dict):
            raise MessageNotADict(f"A message is a dict: found {type(message).__name__}.")
        carried = message if tracing.tracer is None else tracing.carried(message)
        try:
            data = self._serializer.dumps(carried)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(self._explain(message, error)) from error
        if len(data) > self.max_bytes:
            raise MessageTooLarge(
                f"A message of {len(data)} bytes is over the layer's max_message_bytes="
                f"{self.max_bytes}: send a reference to large data instead."
            )
        return data

    def decode(self, data: bytes) -> Message:
        """The message of these bytes.

        Raises:
            UndecodableMessage: If there is none in them, or they are more than `max_bytes`, as no
                sender with these settings has made them.
        """
        if len(data) > self.max_bytes:
            raise UndecodableMessage(
                f"{len(data)} bytes are over the layer's max_message_bytes={self.max_bytes}."
            )
        try:
            message = self._serializer.loads(data)
        except Exception as error:
            raise UndecodableMessage(
                f"{len(data)} bytes hold no message that this layer can read "
                f"({type(error).__name__}: {error})."
            ) from error
        if not isinstance(message, dict):
            raise UndecodableMessage(f"Expected a dict, found {type(message).__name__}.")
        return tracing.received(message) if TRACE_KEY in message else message

    def _explain(self, message: Message, error: Exception) -> str:
        path, culprit = self._find_culprit(message)
        return (
            f"message{path} is a {type(culprit).__name__}, which the channel layer's serializer "
            f"cannot carry ({error}). Convert it first, to a str for instance."
        )

    def _find_culprit(self, value: Any, path: str = "", depth: int = 32) -> tuple[str, Any]:
        """Where the first part stands that cannot be encoded alone, and that part.

        Args:
            depth: Deeper than this the depth itself is what is wrong.
        """
        parts: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            parts = [(f"[{key!r}]", part) for key, part in value.items()]
            parts += [(f" key {key!r}", key) for key in value if not isinstance(key, str)]
        elif isinstance(value, list | tuple):
            parts = [(f"[{index}]", part) for index, part in enumerate(value)]
        for step, part in parts if depth else ():
            try:
                self._serializer.dumps({"": part})
            except (TypeError, ValueError, OverflowError, RecursionError):
                return self._find_culprit(part, path + step, depth - 1)
        return path, value
