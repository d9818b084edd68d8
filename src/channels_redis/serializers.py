"""Serializers of one's own, by the interface that exists for them.

    class CborSerializer(BaseMessageSerializer):
        def as_bytes(self, message): ...
        def from_bytes(self, message): ...

    registry.register_serializer("cbor", CborSerializer)

`serializer_format: "cbor"` in the CONFIG of any layer of Channels finds it from then on.
"""

from __future__ import annotations

import abc
import json
import secrets
from collections.abc import Sequence
from typing import Any

from channels.kit.types import Message
from channels.layers.codec import MsgpackSerializer, register_serializer
from channels.layers.fernet import make_fernet, make_fernets

__all__ = [
    "BaseMessageSerializer",
    "JSONSerializer",
    "MsgPackSerializer",
    "SerializerDoesNotExist",
    "SerializersRegistry",
    "registry",
]


class SerializerDoesNotExist(KeyError):
    """No serializer was registered by this name."""


class BaseMessageSerializer(abc.ABC):
    """Messages to bytes and back, sealed if keys are given.

    Args:
        symmetric_encryption_keys: As in CONFIG.
        random_prefix_length: So many random bytes precede each message; none if it is negative.
        expiry: Sealed messages older than this and ten seconds are refused.
    """

    def __init__(
        self,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        random_prefix_length: int = 0,
        expiry: float | None = None,
    ) -> None:
        self.random_prefix_length = max(0, random_prefix_length)
        self.expiry = expiry
        keys = symmetric_encryption_keys
        # An empty list means none; an empty text is a key that is missing.
        self.crypter = None if keys is None or keys in ([], ()) else make_fernets(keys)

    def make_fernet(self, key: str | bytes) -> Any:
        """What seals with one secret."""
        return make_fernet(key)

    @abc.abstractmethod
    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        """The message as bytes."""

    @abc.abstractmethod
    def from_bytes(self, message: bytes, *args: Any, **kwargs: Any) -> Any:
        """The message of these bytes."""

    def serialize(self, message: Any) -> bytes:
        """The message as bytes, prefixed and sealed."""
        data = secrets.token_bytes(self.random_prefix_length) + self.as_bytes(message)
        return data if self.crypter is None else bytes(self.crypter.encrypt(data))

    def deserialize(self, message: bytes) -> Any:
        """The reverse.

        Raises:
            ValueError: If it is shorter than the random prefix.
            Exception: What the format, or cryptography, raises for what it cannot read.
        """
        data = message
        if self.crypter is not None:
            ttl = None if self.expiry is None else int(self.expiry) + 10
            data = self.crypter.decrypt(data, ttl=ttl)
        if len(data) < self.random_prefix_length:
            raise ValueError(
                f"Found {len(data)} bytes, expected a message after random_prefix_length="
                f"{self.random_prefix_length}: all processes must have the same."
            )
        return self.from_bytes(data[self.random_prefix_length :])


class JSONSerializer(BaseMessageSerializer):
    """JSON as `json.dumps` writes it; no bytes."""

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        return json.dumps(message, *args, **kwargs).encode()

    def from_bytes(self, message: bytes, *args: Any, **kwargs: Any) -> Any:
        return json.loads(message, *args, **kwargs)


class MsgPackSerializer(BaseMessageSerializer):
    """msgpack."""

    _inner = MsgpackSerializer()

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:  # noqa: ARG002 - theirs
        return self._inner.dumps(message)

    def from_bytes(self, message: bytes, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - theirs
        return self._inner.loads(message)


class _Registered:
    """A serializer of this interface in the codec's."""

    def __init__(self, serializer: BaseMessageSerializer) -> None:
        self._serializer = serializer

    def dumps(self, message: Message) -> bytes:
        return self._serializer.serialize(message)

    def loads(self, data: bytes) -> Message:
        found: Message = self._serializer.deserialize(data)
        return found


class SerializersRegistry:
    """Serializers by name."""

    def __init__(self) -> None:
        # Layers have these two by themselves.
        self._registry: dict[Any, type[BaseMessageSerializer]] = {
            "json": JSONSerializer,
            "msgpack": MsgPackSerializer,
        }

    def register_serializer(
        self,
        format: Any,  # noqa: A002 - the name of the API
        serializer_class: type[BaseMessageSerializer],
    ) -> None:
        """Make a serializer known, to every layer.

        Raises:
            AssertionError: If it lacks `serialize` or `deserialize`, as today.
        """
        for name in ("serialize", "deserialize"):
            if not callable(getattr(serializer_class, name, None)):
                raise AssertionError(
                    f"{serializer_class!r} has no {name}(): expected a BaseMessageSerializer."
                )
        self._registry[format] = serializer_class
        register_serializer(format, lambda: _Registered(serializer_class()))

    def get_serializer(
        self,
        format: Any,  # noqa: A002 - the name of the API
        *args: Any,
        **kwargs: Any,
    ) -> BaseMessageSerializer:
        """A new serializer of this format.

        Raises:
            SerializerDoesNotExist: If none is registered by that name.
        """
        try:
            found = self._registry[format]
        except KeyError:
            raise SerializerDoesNotExist(format) from None
        return found(*args, **kwargs)


registry = SerializersRegistry()
