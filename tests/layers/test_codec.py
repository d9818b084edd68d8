"""Messages survive the codec, or fail where they are sent, with the place named."""

import datetime
import decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import InvalidChannelLayerError, MessageTooLarge
from channels.kit.tracing import TRACE_KEY
from channels.layers import InMemoryChannelLayer
from channels.layers.codec import (
    Codec,
    JsonSerializer,
    UndecodableMessage,
    register_serializer,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


# Hypothesis tries texts of the source too, and finds the one key that is the package's own.
names = st.text().filter(lambda name: name != TRACE_KEY)


@given(st.dictionaries(names, values))
def test_msgpack_round_trip(message: dict[str, Any]) -> None:
    codec = Codec()
    assert codec.decode(codec.encode(message)) == message


def test_bytes_and_text_stay_apart_and_tuples_become_lists() -> None:
    codec = Codec()
    message: dict[Any, Any] = {"b": b"x", "t": "x", "pair": (1, 2), 7: "number"}
    back: dict[Any, Any] = codec.decode(codec.encode(message))
    assert back == {"b": b"x", "t": "x", "pair": [1, 2], 7: "number"}


def test_tuples_stay_keys_and_become_lists_elsewhere() -> None:
    codec = Codec()
    message = {"type": "x", "cells": {(1, 2): (3, (4,)), (1, (2, 3)): [{(4, 5): 6}]}}
    assert codec.decode(codec.encode(message)) == {
        "type": "x",
        "cells": {(1, 2): [3, [4]], (1, (2, 3)): [{(4, 5): 6}]},
    }


def test_json() -> None:
    codec = Codec("json")
    assert codec.encode({"text": "ü"}) == '{"text":"ü"}'.encode()
    assert codec.decode(codec.encode({"n": [1, None]})) == {"n": [1, None]}
    with pytest.raises(TypeError, match=r"message\['data'\] is a bytes"):
        codec.encode({"data": b"raw"})


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"when": datetime.date(2024, 1, 1)}, r"message\['when'\] is a date"),
        ({"a": {"b": [1, {1, 2}]}}, r"message\['a'\]\['b'\]\[1\] is a set"),
        ({"price": decimal.Decimal(1)}, r"message\['price'\] is a Decimal"),
        ({"big": 2**64}, r"message\['big'\] is a int"),
        ({"half": "\ud800"}, r"message\['half'\] is a str"),
    ],
)
def test_what_cannot_be_carried_is_named_with_its_place(
    message: dict[str, Any], place: str
) -> None:
    with pytest.raises(TypeError, match=place):
        Codec().encode(message)


def test_endless_nesting_is_a_type_error() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(TypeError):
        Codec().encode(loop)


def test_a_message_is_a_dict() -> None:
    with pytest.raises(TypeError, match="A message is a dict: found str"):
        Codec().encode("text")  # type: ignore[arg-type]


async def test_what_is_no_dict_fails_an_assertion_as_in_channels_4() -> None:
    layer = InMemoryChannelLayer()
    for message in ("text", None, [1]):
        with pytest.raises(AssertionError, match="is a dict"):
            await layer.send("work", message)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="is a dict"):
            await layer.group_send("room", message)  # type: ignore[arg-type]


def test_size_bound() -> None:
    codec = Codec(max_bytes=100)
    with pytest.raises(MessageTooLarge, match="max_message_bytes=100"):
        codec.encode({"text": "x" * 100})


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x81\xa1"])
def test_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableMessage):
        Codec().decode(data)


def test_registered_serializers_are_found_by_name() -> None:
    class Shouting(JsonSerializer):
        def dumps(self, message: dict[str, Any]) -> bytes:
            return super().dumps(message).upper()

    register_serializer("shouting", Shouting)
    assert Codec("shouting").encode({"a": "b"}) == b'{"A":"B"}'
    with pytest.raises(InvalidChannelLayerError, match=r"'whisper'.*json.*msgpack.*shouting"):
        Codec("whisper")
