"""Data binding over WebSockets, with JSON on a demultiplexer's stream.

sent       {"action": ..., "pk": ..., "data": {field: value}, "model": "app_label.model"}
received   {"action": ..., "pk": ..., "data": {field: value}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.core import serializers
from django.core.serializers.base import DeserializedObject
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from channels.kit.printable import printable
from channels.legacy.binding.base import ALL_FIELDS, Binding
from channels.legacy.generic.base import Handler, in_order
from channels.legacy.generic.multiplexing import WebsocketMultiplexer
from channels.legacy.message import Message


class WebsocketBinding(Binding):
    """Sends changes to WebSockets on a stream, and takes changes from it.

    Override `group_names` and `has_permission`, and hand `YourBinding.consumer` to a demultiplexer.

    Attributes:
        strict_ordering: Whether a socket's messages are handled one after the other, in order.
    """

    model: Any = None
    strict_ordering: bool = False

    @classmethod
    def encode(cls, stream: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The message that carries a payload to a client."""
        return WebsocketMultiplexer.encode(stream, payload)

    def serialize(self, instance: Model, action: str) -> Mapping[str, Any]:
        """The payload that tells of a change."""
        return {
            "action": action,
            "pk": instance.pk,
            "data": self.serialize_data(instance),
            "model": self.model_label,
        }

    def serialize_data(self, instance: Model) -> dict[str, Any]:
        """The fields that are sent and their values, in the types of JSON."""
        names = [name for name in _field_names(instance) if self._is_bound(name)]
        encoded = serializers.serialize("json", [instance], fields=names)
        data: dict[str, Any] = json.loads(encoded)[0]["fields"]
        return data

    @classmethod
    def get_handler(cls) -> Handler:
        """The consumer of inbound messages, in its decorators."""
        handler = super().get_handler()
        return in_order(handler) if cls.strict_ordering else handler

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Handle a message that asks for a change; sockets open and close unnoticed."""
        if message.channel.name == "websocket.receive":
            super().trigger_inbound(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, Any]:
        """(action, primary key, data) of a message.

        Raises:
            ValueError: If it is no JSON, or no object with an action.
        """
        body = json.loads(message["text"])
        if not isinstance(body, dict) or "action" not in body:
            raise ValueError(
                'A change is {"action": ..., "pk": ..., "data": {...}}: found '
                f"{printable(repr(body))}."
            )
        return body["action"], body.get("pk"), body.get("data")

    def create(self, data: Any) -> None:
        """Make an object of the bound fields in `data`; others are ignored."""
        self._hydrate(None, self._bound(data)).save()

    def update(self, pk: Any, data: Any) -> None:
        """Set the bound fields in `data`; others are ignored.

        Raises:
            ObjectDoesNotExist: If there is no object with this key.
        """
        instance = self.model._default_manager.get(pk=pk)
        bound = self._bound(data)
        hydrated = self._hydrate(pk, bound)
        related = hydrated.m2m_data or {}
        for name in bound.keys() - related.keys():
            setattr(instance, name, getattr(hydrated.object, name))
        instance.save()
        for name, values in related.items():
            getattr(instance, name).set(values)

    def _hydrate(self, pk: Any, data: Mapping[str, Any]) -> DeserializedObject:
        """An object with these values, not saved."""
        row = {"pk": pk, "model": self.model_label, "fields": data}
        return next(iter(serializers.deserialize("python", [row])))

    def _bound(self, data: Any) -> dict[str, Any]:
        """What a client may write, out of what it has sent."""
        if not isinstance(data, dict):
            raise ValueError(
                f"The data of a change is an object with fields: found {printable(repr(data))}."
            )
        # The key says which object it is: written as a field, it would reach another one.
        key = self.model._meta.pk.name
        return {name: value for name, value in data.items() if name != key and self._is_bound(name)}

    def _is_bound(self, name: str) -> bool:
        if self.fields is None:
            return name not in (self.exclude or ())
        fields = [self.fields] if isinstance(self.fields, str) else self.fields
        return name in fields or ALL_FIELDS in fields


class WebsocketBindingWithMembers(WebsocketBinding):
    """Sends attributes, properties and results of methods besides the fields.

    Attributes:
        send_members: Their names; dots reach into related objects, and are sent as "__".
        encoder: Turns their values into JSON.
    """

    model: Any = None
    send_members: Sequence[str] = ()
    encoder: json.JSONEncoder = DjangoJSONEncoder()

    def serialize_data(self, instance: Model) -> dict[str, Any]:
        """The fields and members that are sent and their values, in the types of JSON."""
        data = super().serialize_data(instance)
        for path in self.send_members:
            value: Any = instance
            for name in path.split("."):
                value = getattr(value, name)
            data[path.replace(".", "__")] = value() if callable(value) else value
        sent: dict[str, Any] = json.loads(self.encoder.encode(data))
        return sent


def _field_names(instance: Model) -> Iterable[str]:
    return (field.name for field in instance._meta.get_fields())
