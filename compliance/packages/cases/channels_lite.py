"""channels-lite: a channel layer of a third party, over SQLite, beneath our consumers."""

REQUIREMENTS = ["channels-lite"]
APPS = ["channels_lite"]
SETTINGS = {
    "CHANNEL_LAYERS": {
        "default": {
            "BACKEND": "channels_lite.layers.core.SQLiteChannelLayer",
            "CONFIG": {"database": "default", "channel_capacity": {"small.*": 3}},
        }
    }
}


def application(django):
    from asgiref.sync import async_to_sync
    from django.urls import path

    from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class Chat(AsyncJsonWebsocketConsumer):
        groups = ["all"]

        async def connect(self):
            await self.channel_layer.group_add("room", self.channel_name)
            await self.accept()
            await self.send_json({"channel": self.channel_name})

        async def receive_json(self, content, **kwargs):
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": content})

        async def chat_message(self, event):
            await self.send_json({"text": event["text"]})

    class SyncChat(JsonWebsocketConsumer):
        groups = ["all"]

        def connect(self):
            async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
            self.accept()
            self.send_json({"channel": self.channel_name})

        def receive_json(self, content, **kwargs):
            message = {"type": "chat.message", "text": content}
            async_to_sync(self.channel_layer.group_send)("room", message)

        def chat_message(self, event):
            self.send_json({"text": event["text"]})

    routes = [path("ws/async/", Chat.as_asgi()), path("ws/sync/", SyncChat.as_asgi())]
    return ProtocolTypeRouter({"http": django, "websocket": URLRouter(routes)})


def drive(site):
    import time

    from asgiref.sync import async_to_sync
    from channels_lite.models import GroupMembership

    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    with site.socket("/ws/async/") as first, site.socket("/ws/sync/") as second:
        channels = [first.hear()["channel"], second.hear()["channel"]]
        for socket in (first, second):
            socket.say("hello")
            assert [first.hear(), second.hear()] == [{"text": "hello"}] * 2
        event = {"type": "chat.message", "text": "from elsewhere"}
        async_to_sync(layer.group_send)("all", event)
        assert [first.hear(), second.hear()] == [{"text": "from elsewhere"}] * 2
        async_to_sync(layer.send)(channels[1], {"type": "chat.message", "text": "you"})
        assert second.hear() == {"text": "you"}
        # A ready event of a group reaches the clients over a layer that knows nothing of it.
        async_to_sync(layer.group_send)("all", {"type": "websocket.send", "text": '{"n": 1}'})
        assert [first.hear(), second.hear()] == [{"n": 1}] * 2
    # The class's groups are left by the consumers, "room" is left to the layer's expiry.
    deadline = time.monotonic() + 30
    while GroupMembership.objects.filter(group_name="all").exists():
        assert time.monotonic() < deadline, list(GroupMembership.objects.values())
        time.sleep(0.05)
