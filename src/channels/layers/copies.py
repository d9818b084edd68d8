"""Messages of the in-memory layer: in MessagePack, or copied as the objects that they are.

A message that MessagePack can carry is encoded as in other layers.  Any other (dates, decimals,
sets, model instances, integers of more than 64 bits) is copied by `copy.deepcopy` when it is sent
and again for each decoding.  No octets stand for an object: whatever a client has sent, and an
application has sent on, is data.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections import deque
from typing import Any, ClassVar, Final

import msgpack

from channels.kit.types import Message
from channels.layers.codec import MsgpackSerializer

#: What MessagePack never uses: octets that begin with it are no message.
_NO_MESSAGE: Final = b"\xc1"
_COLLECTIONS: Final = (set, frozenset, deque)

logger = logging.getLogger("channels.layers")


class CopiedMessage(bytes):
    """Goes where an encoded message goes; its octets only say how much memory it may take."""

    message: Message


class InProcessSerializer(MsgpackSerializer):
    """The in-memory layer's own.

    Users of upstream's in-memory layer, which copies messages, send objects in tests and in
    development.  Here they arrive too, and one line per type in the log says that no layer which
    spans processes would take them.
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
