"""The table of messages: what it lets through, and what it says of everything else."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.decoupled.messages import (
    APPLICATION_EVENTS,
    CLIENT_EVENTS,
    CRASH_RULES,
    ENVELOPES,
    MESSAGES,
    VERSION,
    Field,
    Side,
    check_envelope,
    check_message,
    size_of,
)
from channels.exceptions import MalformedMessage
from channels.layers.codec import Codec

#: A value that fits each kind of field.
VALUES: dict[Any, Any] = {int: 1, str: "close", bytes: b"12345678", bool: True, list: [], dict: {}}


def example(table: Any, key: str, name: str) -> dict[str, Any]:
    kind = table[name]
    message = {key: name, **{field: VALUES[rule.kind] for field, rule in kind.fields.items()}}
    if key == "type":
        message["version"] = VERSION
    if kind.events:
        message["event"] = {"type": min(kind.events)}
    return message


def sender_of(name: str) -> Side:
    sender = MESSAGES[name].sender
    assert sender is not None, "a message of a connection has one sender"
    return sender


@pytest.mark.parametrize("name", list(MESSAGES))
def test_a_message_of_the_table_passes_the_layer_s_codec_and_the_check(name: str) -> None:
    codec = Codec()
    message = example(MESSAGES, "kind", name)
    there = codec.decode(codec.encode(message))
    assert check_message(there, sender_of(name)) == message


@pytest.mark.parametrize("name", list(ENVELOPES))
def test_an_envelope_of_the_table_passes(name: str) -> None:
    envelope = example(ENVELOPES, "type", name)
    assert check_envelope(envelope) == envelope


@pytest.mark.parametrize("name", list(MESSAGES))
def test_only_its_own_side_may_say_a_message(name: str) -> None:
    (other,) = set(get_args(Side)) - {sender_of(name)}
    with pytest.raises(MalformedMessage, match="the other side sends it"):
        check_message(example(MESSAGES, "kind", name), other)


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, kind in MESSAGES.items() for field in kind.fields]
)
def test_a_field_is_there_and_of_its_type(name: str, field: str) -> None:
    message = example(MESSAGES, "kind", name)
    wrong = {**message, field: 1.5}
    with pytest.raises(MalformedMessage, match=field):
        check_message(wrong, sender_of(name))
    del message[field]
    if not MESSAGES[name].fields[field].is_optional:
        with pytest.raises(MalformedMessage, match=field):
            check_message(message, sender_of(name))
    else:
        check_message(message, sender_of(name))


@pytest.mark.parametrize("name", list(MESSAGES))
def test_a_later_release_may_add_fields(name: str) -> None:
    check_message({**example(MESSAGES, "kind", name), "new": [1]}, sender_of(name))


@pytest.mark.parametrize("name", list(ENVELOPES))
@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1", [1]])
def test_a_version_that_cannot_be_read_is_named(name: str, version: Any) -> None:
    with pytest.raises(MalformedMessage, match="this release reads 1"):
        check_envelope({**example(ENVELOPES, "type", name), "version": version})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event": {"type": "websocket.send"}}, "with an event of type 'websocket.send'"),
        ({"event": {"type": ["x"]}}, "with an event of type"),
        ({"event": {}}, "with an event of type None"),
        ({"event": {"type": "websocket.receive", "text": 5}}, "text: expected str"),
        ({"event": {"type": "websocket.receive", "bytes": "x"}}, "bytes: expected bytes"),
        ({"id": 0}, "expected a number from 1"),
        ({"id": True}, "expected int, found bool"),
        ({"sequence": 2**63}, "expected a number from 0"),
        ({"kind": "evnet"}, "expected one of claim"),
        ({"kind": None}, "expected one of claim"),
        ({"kind": ["event"]}, "expected one of claim"),
    ],
)
def test_an_event_that_is_none_is_refused_with_the_reason(change: Any, says: str) -> None:
    with pytest.raises(MalformedMessage, match=says):
        check_message({**example(MESSAGES, "kind", "event"), **change}, "edge")


@pytest.mark.parametrize("pairs", [[1], [[1]], [[1, "2"]], [[1, True]], [[1, 2], None]])
def test_a_roll_names_ids_and_generations(pairs: Any) -> None:
    with pytest.raises(MalformedMessage, match="expected a list of id and generation"):
        check_message({**example(MESSAGES, "kind", "roll"), "connections": pairs}, "worker")


def test_a_crash_rule_is_one_of_the_three() -> None:
    with pytest.raises(MalformedMessage, match=", ".join(CRASH_RULES)):
        check_message({**example(MESSAGES, "kind", "ack"), "on_crash": "explode"}, "worker")


def test_bounds_hold_at_both_ends() -> None:
    rule = Field(bytes, 2, 3)
    assert [bool(rule.problem(b"x" * size)) for size in range(1, 5)] == [True, False, False, True]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@given(
    name=st.sampled_from(sorted(MESSAGES)),
    change=st.dictionaries(
        st.sampled_from(sorted({field for kind in MESSAGES.values() for field in kind.fields})),
        anything,
        max_size=3,
    ),
)
def test_whatever_stands_in_a_message_it_is_passed_or_refused(
    name: str, change: dict[str, Any]
) -> None:
    message = {**example(MESSAGES, "kind", name), **change}
    try:
        assert check_message(message, sender_of(name)) is message
    except MalformedMessage:
        return
    for field, rule in MESSAGES[name].fields.items():
        assert not rule.problem(message.get(field))


@given(anything)
def test_anything_else_is_refused(raw: Any) -> None:
    with pytest.raises(MalformedMessage):
        check_message(raw, "edge")
    with pytest.raises(MalformedMessage):
        check_envelope(raw)


def test_the_sides_say_different_events() -> None:
    assert not CLIENT_EVENTS & APPLICATION_EVENTS


def test_an_event_counts_at_least_its_payload() -> None:
    assert size_of({"text": "grüße"}) - size_of({}) >= len("grüße".encode())
    assert size_of({"bytes": b"123"}) - size_of({}) == 3
    assert size_of({"body": b"12", "text": None}) - size_of({}) == 2
