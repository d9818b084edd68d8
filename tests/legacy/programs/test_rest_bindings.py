"""The suite of such a package runs as it stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db.models import signals
from rest_framework import serializers

from channels import route_class
from channels.generic.websockets import WebsocketDemultiplexer
from channels.test import ChannelTestCase, WSClient
from tests.legacy.programs.rest_bindings import IsAuthenticated, ResourceBinding
from tests.legacy.routes import routed


class GroupSerializer(serializers.ModelSerializer):  # type: ignore[misc] # it has no types
    class Meta:
        model = Group
        fields = ("id", "name")


class GroupBinding(ResourceBinding):
    model: Any = None
    stream = "groups"
    queryset = Group.objects.all()
    serializer_class = GroupSerializer


@pytest.fixture(autouse=True)
def bindings() -> Iterable[None]:
    """The bindings are registered while a test runs: other tests save rows as well."""
    GroupBinding.model = Group
    GroupBinding.register()
    yield
    for name in ("pre_save", "post_save", "pre_delete", "post_delete"):
        signal = getattr(signals, name)
        assert signal.disconnect(getattr(GroupBinding, f"{name}_receiver"), sender=Group)


class Private(GroupBinding):
    model = None
    permission_classes = (IsAuthenticated,)


class Api(WebsocketDemultiplexer):
    http_user = True
    consumers = {"groups": GroupBinding.consumer, "private": Private.consumer}


@routed(route_class(Api))
class TestResources(ChannelTestCase):
    def setUp(self) -> None:
        self.ws = WSClient()

    def ask(self, action: str, stream: str = "groups", **more: Any) -> Any:
        payload = {"action": action, "request_id": "r1", **more}
        frame = {"stream": stream, "payload": payload}
        self.ws.send_and_consume("websocket.receive", text=frame)
        return self.heard()

    def heard(self) -> Any:
        message = self.ws.receive()
        return None if message is None else message["payload"]

    def test_create(self) -> None:
        answer = self.ask("create", data={"name": "editors"})
        assert answer == {
            "action": "create",
            "data": GroupSerializer(Group.objects.get()).data,
            "errors": [],
            "request_id": "r1",
            "response_status": 201,
        }

    def test_create_fails(self) -> None:
        answer = self.ask("create", data={})
        assert answer["errors"] == [{"name": ["This field is required."]}]
        assert answer["response_status"] == 400
        assert not Group.objects.exists()

    def test_retrieve_and_list(self) -> None:
        group = Group.objects.create(name="editors")
        assert self.ask("retrieve", pk=group.pk)["data"]["name"] == "editors"
        assert len(self.ask("list")["data"]) == 1
        assert self.ask("retrieve", pk="no key")["errors"] == ["Not found."]

    def test_update_and_delete(self) -> None:
        group = Group.objects.create(name="editors")
        assert self.ask("update", pk=group.pk, data={"name": "readers"})["response_status"] == 200
        group.refresh_from_db()
        assert group.name == "readers"
        assert self.ask("delete", pk=group.pk)["data"] == {}
        assert self.ask("delete", pk=group.pk)["response_status"] == 404

    def test_subscribe(self) -> None:
        assert self.ask("subscribe", data={"action": "create"})["data"] == {"action": "create"}
        group = Group.objects.create(name="editors")
        assert self.heard() == {
            "action": "create",
            "data": GroupSerializer(group).data,
            "model": "auth.group",
            "pk": group.pk,
        }
        assert self.heard() is None
        self.ask("subscribe", pk=group.pk, data={"action": "update"})
        group.save()
        assert self.heard()["action"] == "update"

    def test_permissions(self) -> None:
        assert self.ask("list", stream="private")["errors"] == ["Permission Denied"]
        self.ws.force_login(User.objects.create(username="ann"))
        self.ws.send_and_consume("websocket.connect")
        assert self.ask("list", stream="private")["response_status"] == 200
        assert self.ask("dance", stream="private")["errors"] == ["Invalid Action"]
