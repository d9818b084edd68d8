"""The page about consumers has the attributes that a consumer class may set, and no others."""

from __future__ import annotations

import inspect

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.generic import http, sse, websocket
from tests.docs.sources import ROW, sections
from tests.docs.tutorial import ROOT

CONSUMERS = (
    AsyncConsumer,
    SyncConsumer,
    websocket.AsyncJsonWebsocketConsumer,
    websocket.JsonWebsocketConsumer,
    http.AsyncHttpConsumer,
    sse.AsyncEventStreamConsumer,
)
#: What a server or router sets on an instance.
GIVEN = {"base_send", "channel_layer", "channel_name", "scope"}


def test_attributes_of_consumer_classes() -> None:
    named = {
        name
        for consumer in CONSUMERS
        for base in consumer.__mro__
        if base.__module__.startswith("channels.")
        for name, value in vars(base).items()
        if not callable(value) and not isinstance(value, property | classmethod | staticmethod)
    } | {name for consumer in CONSUMERS for name in _annotated(consumer)}
    public = {name for name in named if not name.startswith("_")}
    assert public >= GIVEN
    page = sections(ROOT / "docs/topics/consumers.md")
    assert set(ROW.findall(page["What a class may set"])) == public - GIVEN


def _annotated(consumer: type) -> set[str]:
    return {
        name
        for base in consumer.__mro__
        if base.__module__.startswith("channels.")
        for name in inspect.get_annotations(base)
    }
