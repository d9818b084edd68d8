"""Serializers registered by the interface of channels_redis."""

import pickle
from typing import Any

import pytest

from channels.exceptions import InvalidChannelLayerError
from channels.layers import InMemoryChannelLayer
from channels_redis.serializers import (
    BaseMessageSerializer,
    JSONSerializer,
    MsgPackSerializer,
    SerializerDoesNotExist,
    registry,
)

MESSAGE = {"type": "x", "number": 1, "list": [1, 2], "text": "ü"}


class LinesSerializer(BaseMessageSerializer):
    """Only types, one to a message."""

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        return str(message["type"]).encode() + b"\n"

    def from_bytes(self, message: bytes, *args: Any, **kwargs: Any) -> Any:
        return {"type": message.decode().strip()}


@pytest.mark.parametrize("kind", [JSONSerializer, MsgPackSerializer])
@pytest.mark.parametrize("options", [{}, {"random_prefix_length": 12}])
@pytest.mark.parametrize("keys", [None, ["new", "old"]])
def test_there_and_back(
    kind: type[BaseMessageSerializer], options: dict[str, Any], keys: list[str] | None
) -> None:
    serializer = kind(keys, **options)
    assert serializer.deserialize(serializer.serialize(MESSAGE)) == MESSAGE


def test_a_random_prefix_makes_equal_messages_differ() -> None:
    serializer = registry.get_serializer("msgpack", random_prefix_length=12)
    assert serializer.serialize(MESSAGE) != serializer.serialize(MESSAGE)


def test_keys_rotate() -> None:
    old = registry.get_serializer("json", symmetric_encryption_keys=["old"], expiry=60)
    both = registry.get_serializer("json", symmetric_encryption_keys=["new", "old"], expiry=60)
    assert both.deserialize(old.serialize(MESSAGE)) == MESSAGE
    with pytest.raises(Exception):  # noqa: B017, PT011 - cryptography's own
        old.deserialize(both.serialize(MESSAGE))
    with pytest.raises(InvalidChannelLayerError, match="list"):
        registry.get_serializer("json", symmetric_encryption_keys="one")


async def test_a_registered_one_serves_any_layer() -> None:
    registry.register_serializer("lines", LinesSerializer)
    layer = InMemoryChannelLayer(serializer_format="lines")
    await layer.send("channel", {"type": "x", "lost": 1})
    assert await layer.receive("channel") == {"type": "x"}


def test_unknown_and_unfit_ones_are_refused() -> None:
    with pytest.raises(SerializerDoesNotExist):
        registry.get_serializer("unheard")
    with pytest.raises(AssertionError, match="serialize"):
        registry.register_serializer("pickle", pickle)  # type: ignore[arg-type]
