"""A package in the style of its time: Django REST framework's serializers behind bindings.

It subclasses `WebsocketBinding` and overrides its hooks, with group names that depend on the action
and answers to the client that asked.
"""

from __future__ import annotations

import json
from typing import Any

from django.http import Http404
from rest_framework.exceptions import APIException, NotFound
from rest_framework.generics import get_object_or_404

from channels import Group
from channels.binding import websockets
from channels.binding.base import CREATE, DELETE, UPDATE


class ResourceBase(websockets.WebsocketBinding):
    model: Any = None
    fields: Any = []
    actions: tuple[str, ...] = ("create", "retrieve", "list", "update", "delete", "subscribe")
    queryset: Any = None
    serializer_class: Any = None
    permission_classes: tuple[Any, ...] = ()

    def deserialize(self, message: Any) -> Any:
        body = json.loads(message["text"])
        self.request_id = body.get("request_id")
        return body["action"], body.get("pk"), body.get("data")

    @classmethod
    def pre_change_receiver(cls, instance: Any, action: str) -> None:
        groups = set() if action == CREATE else set(cls.group_names(instance, action))
        if not hasattr(instance, "_binding_group_names"):
            instance._binding_group_names = {}
        instance._binding_group_names[cls] = groups

    @classmethod
    def post_change_receiver(cls, instance: Any, action: str, **kwargs: Any) -> None:
        old = instance._binding_group_names[cls]
        new = set() if action == DELETE else set(cls.group_names(instance, action))
        self = cls()
        self.send_messages(instance, old - new, DELETE, **kwargs)
        self.send_messages(instance, old & new, UPDATE, **kwargs)
        self.send_messages(instance, new - old, CREATE, **kwargs)

    @classmethod
    def group_names(cls, instance: Any, action: str) -> Any:  # type: ignore[override]
        names = [cls().group_name(action)]
        return [*names, cls().group_name(action, instance.pk)] if instance.pk else names

    def group_name(self, action: str, pk: Any = None) -> str:
        name = f"{self.model_label}-{action}"
        return f"{name}-{pk}" if pk else name

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        return all(kind().has_permission(user, action, pk) for kind in self.permission_classes)

    def serialize_data(self, instance: Any) -> Any:
        return self.serializer_class(instance).data

    def find(self, pk: Any) -> Any:
        try:
            return get_object_or_404(self.queryset.all(), pk=pk)
        except Http404:
            raise NotFound from None

    def run_action(self, action: str, pk: Any, data: Any) -> None:
        try:
            if not self.has_permission(self.user, action, pk):
                self.reply(action, errors=["Permission Denied"], status=401)
            elif action not in self.actions:
                self.reply(action, errors=["Invalid Action"], status=400)
            else:
                found, status = getattr(self, f"do_{action}")(pk, data)
                self.reply(action, found, status=status)
        except APIException as error:
            detail: Any = error.detail
            errors = detail if isinstance(detail, list) else [detail]
            self.reply(action, errors=errors, status=error.status_code)

    def reply(self, action: str, data: Any = None, errors: Any = (), status: int = 200) -> None:
        payload = {
            "action": action,
            "data": data,
            "errors": list(errors),
            "request_id": self.request_id,
            "response_status": status,
        }
        assert self.stream is not None
        self.message.reply_channel.send(self.encode(self.stream, payload))

    def do_create(self, pk: Any, data: Any) -> Any:
        serializer = self.serializer_class(data=data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return serializer.data, 201

    def do_retrieve(self, pk: Any, data: Any) -> Any:
        return self.serialize_data(self.find(pk)), 200

    def do_list(self, pk: Any, data: Any) -> Any:
        return self.serializer_class(self.queryset.all(), many=True).data, 200

    def do_update(self, pk: Any, data: Any) -> Any:
        serializer = self.serializer_class(self.find(pk), data=data, partial=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return serializer.data, 200

    def do_delete(self, pk: Any, data: Any) -> Any:
        self.find(pk).delete()
        return {}, 200

    def do_subscribe(self, pk: Any, data: Any) -> Any:
        name = self.group_name(data["action"], pk)
        Group(name).add(self.message.reply_channel)
        return {"action": data["action"]}, 200


class ResourceBinding(ResourceBase):
    model: Any = None


class IsAuthenticated:
    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        return bool(user.is_authenticated)
