"""Serializers registered by the interface of channels_redis."""

import json
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
@pytest.mark.parametrize(
    "options", [{}, {"random_prefix_length": 12}, {"random_prefix_length": -1}]
)
@pytest.mark.parametrize("keys", [None, ["new", "old"]])
def test_there_and_back(
    kind: type[BaseMessageSerializer], options: dict[str, Any], keys: list[str] | None
) -> None:
    serializer = kind(keys, **options)
    assert serializer.deserialize(serializer.serialize(MESSAGE)) == MESSAGE


def test_a_random_prefix_makes_equal_messages_differ() -> None:
    serializer = registry.get_serializer("msgpack", random_prefix_length=12)
    assert serializer.serialize(MESSAGE) != serializer.serialize(MESSAGE)


def test_a_negative_length_of_the_prefix_means_none() -> None:
    serializer = registry.get_serializer("json", random_prefix_length=-1)
    assert serializer.serialize(MESSAGE) == json.dumps(MESSAGE).encode()


def test_json_is_written_as_other_programs_expect_it() -> None:
    assert JSONSerializer().as_bytes({"a": 1, "b": "ü"}) == b'{"a": 1, "b": "\\u00fc"}'


@pytest.mark.parametrize("kind", [JSONSerializer, MsgPackSerializer])
@pytest.mark.parametrize("data", [b"", b"twelve bytes", b"twelve bytes\xc1", b"twelve bytes{}{}"])
def test_what_cannot_be_read_is_refused(kind: type[BaseMessageSerializer], data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgpack's own, json's, ours
        kind(random_prefix_length=12).deserialize(data)


def test_what_is_shorter_than_the_prefix_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^Found 3 bytes, expected a message after random_prefix"):
        JSONSerializer(random_prefix_length=12).deserialize(b"{ }")


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


class UpperSerializer:
    """All that the interface asks for: no base class."""

    def serialize(self, message: Any) -> bytes:
        return str(message["type"]).upper().encode()

    def deserialize(self, message: bytes) -> Any:
        return {"type": message.decode()}


async def test_a_registered_one_needs_no_base_class() -> None:
    registry.register_serializer("upper", UpperSerializer)  # type: ignore[arg-type]
    layer = InMemoryChannelLayer(serializer_format="upper")
    await layer.send("channel", {"type": "x"})
    assert await layer.receive("channel") == {"type": "X"}


def test_unknown_and_unfit_ones_are_refused() -> None:
    with pytest.raises(SerializerDoesNotExist):
        registry.get_serializer("unheard")
    with pytest.raises(AssertionError, match="serialize"):
        registry.register_serializer("pickle", pickle)  # type: ignore[arg-type]
