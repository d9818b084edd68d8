"""Models bound to WebSockets: changes go out, and come in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.contrib.auth.models import Group as AuthGroup
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from channels import Group, route, route_class
from channels.binding.base import CREATE, DELETE, UPDATE
from channels.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from channels.generic.websockets import WebsocketDemultiplexer
from channels.test import ChannelTestCase, WSClient, apply_routes
from tests.legacy.routes import routed


@pytest.fixture(autouse=True)
def no_binding_is_left() -> Iterable[None]:
    """Disconnect what the bindings of a test have connected: they live as long as the test run."""
    signals = (pre_save, post_save, pre_delete, post_delete)
    before = [list(signal.receivers) for signal in signals]
    yield
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


class Open(WebsocketBinding):
    """Anybody may do anything."""

    model: Any = None
    stream = "users"
    asked: list[tuple[str, str, Any]] = []

    @classmethod
    def group_names(cls, instance: Any) -> list[str]:
        return ["users"]

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        self.asked.append((str(user), action, pk))
        return True


def bind_users(**attributes: Any) -> type[WebsocketBinding]:
    """A binding of users, made in a test."""
    made = type("Users", (Open,), {"model": User, "asked": [], **attributes})
    assert issubclass(made, WebsocketBinding)
    return made


def payloads(client: WSClient) -> list[Any]:
    found = []
    while (message := client.receive()) is not None:
        assert message["stream"] == "users"
        found.append(message["payload"])
    return found


@routed()
class TestOutbound(ChannelTestCase):
    def setUp(self) -> None:
        self.ws = WSClient()
        self.ws.join_group("users")

    def test_a_row_is_told_of_all_its_life(self) -> None:
        bind_users(fields=["username", "email"])
        user = User.objects.create(username="ann", email="ann@example.org")
        user.username = "bea"
        user.save()
        pk = user.pk
        user.delete()
        sent = {"pk": pk, "model": "auth.user"}
        ann = {"username": "ann", "email": "ann@example.org"}
        bea = {"username": "bea", "email": "ann@example.org"}
        assert payloads(self.ws) == [
            {"action": "create", "data": ann, **sent},
            {"action": "update", "data": bea, **sent},
            {"action": "delete", "data": bea, **sent},
        ]

    def test_all_fields_but_some(self) -> None:
        bind_users(exclude=["password", "last_login", "groups", "user_permissions"])
        User.objects.create(username="ann")
        (payload,) = payloads(self.ws)
        assert payload["data"].keys() == {
            *("username", "first_name", "last_name", "email", "date_joined"),
            *("is_active", "is_staff", "is_superuser"),
        }
        assert isinstance(payload["data"]["date_joined"], str)

    def test_all_fields(self) -> None:
        for fields in (["__all__"], "__all__"):
            bind_users(fields=fields)
        User.objects.create(username="ann", password="secret")
        first, second = payloads(self.ws)
        assert first == second
        assert first["data"]["password"] == "secret"

    def test_groups_that_come_and_go(self) -> None:
        def by_letter(cls: Any, instance: Any) -> list[str]:
            names: list[str] = instance.groups_now
            return names

        bind_users(fields=["username"], group_names=classmethod(by_letter))
        user = User(username="ann")
        user.groups_now = ["a", "b"]  # type: ignore[attr-defined]
        user.save()
        clients = {name: WSClient() for name in "abc"}
        for name, client in clients.items():
            client.join_group(name)
        # The object has other groups once it is saved.
        groups = [["a", "b"], ["b", "c"]]
        type(user).groups_now = property(  # type: ignore[attr-defined]
            lambda _: groups.pop(0), lambda _, __: None
        )
        self.addCleanup(delattr, User, "groups_now")
        user.save()
        heard = {name: [each["action"] for each in payloads(it)] for name, it in clients.items()}
        assert heard == {"a": [DELETE], "b": [UPDATE], "c": [CREATE]}

    def test_nothing_is_sent_where_nobody_shall_know(self) -> None:
        class Silent(Open):
            model = "auth.Group"
            fields = ["name"]

            def serialize(self, instance: Model, action: str) -> dict[str, Any]:
                seen.append((action, self.signal_kwargs))
                return {}

        seen: list[Any] = []
        AuthGroup.objects.create(name="editors")
        ((action, kwargs),) = seen
        assert action == CREATE
        assert kwargs["raw"] is False
        assert payloads(self.ws) == []

    def test_members_are_sent_with_the_fields(self) -> None:
        class Members(WebsocketBindingWithMembers):
            model = Permission
            stream = "users"
            fields = ["codename"]
            send_members = ["content_type.app_label", "natural_key", "content_type.model"]

            @classmethod
            def group_names(cls, instance: Any) -> list[str]:
                return ["users"]

        kind = Permission.objects.get(codename="add_user").content_type
        Permission.objects.create(codename="greet", name="Can greet", content_type=kind)
        (payload,) = payloads(self.ws)
        assert payload["data"] == {
            "codename": "greet",
            "content_type__app_label": "auth",
            "content_type__model": "user",
            "natural_key": ["greet", "auth", "user"],
        }
        assert Members.model_label == "auth.permission"

    def test_a_stream_is_needed(self) -> None:
        bind_users(fields=["username"], stream=None)
        with pytest.raises(ValueError, match="Users has no stream to send on"):
            User.objects.create(username="ann")


@routed()
class TestInbound(ChannelTestCase):
    def setUp(self) -> None:
        self.ws = WSClient()

    def ask(self, binding: Any, payload: Any) -> None:
        class Streams(WebsocketDemultiplexer):
            consumers = {"users": binding.consumer}

        with apply_routes(route_class(Streams)):
            frame = {"stream": "users", "payload": payload}
            self.ws.send_and_consume("websocket.receive", text=frame)

    def test_a_client_makes_changes_and_deletes_rows(self) -> None:
        users = bind_users(fields=["username", "email"])
        self.ask(users, {"action": "create", "data": {"username": "ann"}})
        ann = User.objects.get(username="ann")
        self.ask(users, {"action": "update", "pk": ann.pk, "data": {"email": "a@example.org"}})
        ann.refresh_from_db()
        assert (ann.username, ann.email) == ("ann", "a@example.org")
        self.ask(users, {"action": "delete", "pk": ann.pk})
        assert not User.objects.exists()
        self.ask(users, {"action": "delete", "pk": ann.pk})
        who = "AnonymousUser"
        assert Open.asked == []
        assert vars(users)["asked"] == [
            (who, "create", None),
            (who, "update", ann.pk),
            (who, "delete", ann.pk),
            (who, "delete", ann.pk),
        ]

    def test_fields_that_are_not_bound_stay_as_they_are(self) -> None:
        users = bind_users(fields=["username"])
        data = {"username": "eve", "is_superuser": True, "id": 77, "no_field": 1}
        self.ask(users, {"action": "create", "data": data})
        eve = User.objects.get()
        assert (eve.username, eve.is_superuser, eve.pk == 77) == ("eve", False, False)
        self.ask(users, {"action": "update", "pk": eve.pk, "data": {**data, "username": "eva"}})
        eve.refresh_from_db()
        assert (eve.username, eve.is_superuser) == ("eva", False)

    def test_the_key_is_never_written(self) -> None:
        users = bind_users(fields=["__all__"])
        ann, bea = (User.objects.create(username=name) for name in ("ann", "bea"))
        self.ask(users, {"action": "update", "pk": ann.pk, "data": {"id": bea.pk, "email": "x"}})
        bea.refresh_from_db()
        ann.refresh_from_db()
        assert (ann.email, bea.email) == ("x", "")

    def test_related_rows_are_set(self) -> None:
        users = bind_users(exclude=["password"])
        editors = AuthGroup.objects.create(name="editors")
        ann = User.objects.create(username="ann", password="kept")
        data = {"groups": [editors.pk], "first_name": "Ann", "password": "lost"}
        self.ask(users, {"action": "update", "pk": ann.pk, "data": data})
        ann.refresh_from_db()
        assert list(ann.groups.all()) == [editors]
        assert (ann.first_name, ann.password) == ("Ann", "kept")

    def test_without_permission_nothing_happens(self) -> None:
        users = bind_users(fields=["username"], has_permission=lambda *_: False)
        self.ask(users, {"action": "create", "data": {"username": "ann"}})
        assert not User.objects.exists()

    def test_the_user_of_the_channel_session_is_asked_for(self) -> None:
        users = bind_users(fields=["username"])
        self.ws.force_login(User.objects.create(username="ann"))

        class Streams(WebsocketDemultiplexer):
            consumers = {"users": users.consumer}
            http_user = True

        with apply_routes(route_class(Streams)):
            self.ws.send_and_consume("websocket.connect")
            frame = {"stream": "users", "payload": {"action": "delete", "pk": 0}}
            self.ws.send_and_consume("websocket.receive", text=frame)
        assert vars(users)["asked"] == [("ann", "delete", 0)]

    def test_what_cannot_be_done_is_said(self) -> None:
        users = bind_users(fields=["username"])
        with pytest.raises(ValueError, match="action='grow': expected create, update or delete"):
            self.ask(users, {"action": "grow"})
        with pytest.raises(ValueError, match=r'A change is \{"action"'):
            self.ask(users, {"verb": "create"})
        with pytest.raises(ValueError, match="data of a change is an object"):
            self.ask(users, {"action": "create", "data": ["ann"]})
        with pytest.raises(ObjectDoesNotExist):
            self.ask(users, {"action": "update", "pk": 0, "data": {}})

    def test_sockets_that_open_and_close_are_none_of_its_business(self) -> None:
        users = bind_users(fields=["username"])
        with apply_routes([route(name, users.consumer) for name in CHANNELS]):
            self.ws.send_and_consume("websocket.connect", check_accept=False)
            self.ws.send_and_consume("websocket.disconnect")
            self.ws.send_and_consume("websocket.receive", text={"action": "delete", "pk": 0})
        assert len(vars(users)["asked"]) == 1

    def test_changes_may_be_taken_in_order(self) -> None:
        users = bind_users(fields=["username"], strict_ordering=True)
        with apply_routes(route("websocket.receive", users.consumer)):
            later = {"action": "delete", "pk": 1}
            self.ws.send_and_consume("websocket.receive", {"order": 1}, text=later)
            assert vars(users)["asked"] == []
            first = {"action": "delete", "pk": 0}
            self.ws.send_and_consume("websocket.receive", {"order": 0}, text=first)
            self.ws.consume("websocket.receive")
        assert [pk for _, _, pk in vars(users)["asked"]] == [0, 1]


CHANNELS = ("websocket.connect", "websocket.receive", "websocket.disconnect")


@routed()
class TestInConsumers(ChannelTestCase):
    def test_what_a_change_sends_is_sent_once_the_consumer_has_returned(self) -> None:
        bind_users(fields=["username"])
        early = []

        def consume(message: Any) -> None:
            User.objects.create(username="ann")
            early.append(listener.receive())
            Group("users").send({"text": '{"stream": "users", "payload": "last"}'})

        listener = WSClient()
        listener.join_group("users")
        with apply_routes(route("jobs", consume)):
            WSClient().send_and_consume("jobs")
        assert early == [None]
        first, second = payloads(listener)
        assert (first["action"], second) == ("create", "last")
