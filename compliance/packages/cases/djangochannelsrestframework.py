"""djangochannelsrestframework: an API over a WebSocket, with subscriptions to models."""

REQUIREMENTS = ["djangochannelsrestframework"]
APPS = ["rest_framework"]


def application(django):
    from django.contrib.auth.models import Group
    from django.urls import path
    from djangochannelsrestframework import mixins
    from djangochannelsrestframework.decorators import action
    from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
    from djangochannelsrestframework.observer import model_observer
    from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
    from djangochannelsrestframework.permissions import AllowAny
    from rest_framework.serializers import ModelSerializer

    from channels.auth import AuthMiddlewareStack
    from channels.routing import ProtocolTypeRouter, URLRouter

    class GroupSerializer(ModelSerializer):
        class Meta:
            model = Group
            fields = ["id", "name"]

    class GroupConsumer(
        mixins.CreateModelMixin,
        mixins.ListModelMixin,
        mixins.PatchModelMixin,
        mixins.DeleteModelMixin,
        ObserverModelInstanceMixin,
        GenericAsyncAPIConsumer,
    ):
        queryset = Group.objects.order_by("pk")
        serializer_class = GroupSerializer
        permission_classes = (AllowAny,)

        @model_observer(Group)
        async def group_activity(self, message, subscribing_request_ids=(), **kwargs):
            for request_id in subscribing_request_ids:
                await self.reply(action="activity", data=message, request_id=request_id)

        @group_activity.serializer
        def group_activity(self, instance, action, **kwargs):
            return {"name": instance.name, "what": action.value}

        @action()
        async def watch_all(self, request_id, **kwargs):
            await self.group_activity.subscribe(request_id=request_id)
            return {"watching": True}, 200

    routes = [path("ws/groups/", GroupConsumer.as_asgi())]
    return ProtocolTypeRouter({"http": django, "websocket": AuthMiddlewareStack(URLRouter(routes))})


def drive(site):
    from django.contrib.auth.models import Group

    with site.socket("/ws/groups/") as socket, site.socket("/ws/groups/") as watcher:
        made = socket.ask({"action": "create", "data": {"name": "one"}, "request_id": 1})
        assert made["response_status"] == 201, made
        key = made["data"]["id"]
        listed = socket.ask({"action": "list", "request_id": 2})
        assert [each["name"] for each in listed["data"]] == ["one"], listed

        watcher.say({"action": "subscribe_instance", "pk": key, "request_id": 3})
        watcher.hear_until(response_status=201)
        watcher.say({"action": "watch_all", "request_id": 4})
        watcher.hear_until(response_status=200, request_id=4)
        socket.ask({"action": "patch", "pk": key, "data": {"name": "two"}, "request_id": 5})
        heard = [watcher.hear(), watcher.hear()]
        assert {each["action"] for each in heard} == {"update", "activity"}, heard

        # Saved in this process: the signal goes through the layer to the other.
        Group.objects.create(name="elsewhere")
        heard = watcher.hear_until(action="activity")
        assert heard["data"] == {"name": "elsewhere", "what": "create"}, heard

        gone = socket.ask({"action": "delete", "pk": key, "request_id": 6})
        assert gone["response_status"] == 204, gone
        watcher.hear_until(action="delete")
        missing = socket.ask({"action": "patch", "pk": key, "data": {}, "request_id": 7})
        assert missing["response_status"] == 404, missing
