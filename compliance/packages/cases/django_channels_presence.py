"""django-channels-presence-4.0: who is in a room, by its own tables beside the layer's groups."""

REQUIREMENTS = ["django-channels-presence-4-0"]
APPS = ["channels_presence"]


def application(django):
    import json

    from asgiref.sync import async_to_sync
    from channels_presence.decorators import remove_presence, touch_presence
    from channels_presence.models import Room
    from channels_presence.signals import presence_changed
    from django.dispatch import receiver
    from django.urls import path

    from channels.auth import AuthMiddlewareStack
    from channels.generic.websocket import WebsocketConsumer
    from channels.layers import get_channel_layer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class RoomConsumer(WebsocketConsumer):
        def connect(self):
            super().connect()
            Room.objects.add("lobby", self.channel_name, self.scope["user"])

        @touch_presence
        def receive(self, text_data=None, bytes_data=None):
            self.send(text_data)

        @remove_presence
        def disconnect(self, code):
            """Gone."""

        def presence(self, event):
            self.send(json.dumps({"anonymous": event["anonymous"]}))

    @receiver(presence_changed, weak=False)
    def tell(sender, room, **kwargs):
        message = {"type": "presence", "anonymous": room.get_anonymous_count()}
        async_to_sync(get_channel_layer().group_send)(room.channel_name, message)

    stack = AuthMiddlewareStack(URLRouter([path("ws/", RoomConsumer.as_asgi())]))
    return ProtocolTypeRouter({"http": django, "websocket": stack})


def drive(site):
    from channels_presence.models import Presence

    with site.socket("/ws/") as first:
        first.hear_until(anonymous=1)
        with site.socket("/ws/") as second:
            first.hear_until(anonymous=2)
            second.hear_until(anonymous=2)
            assert Presence.objects.count() == 2
            before = Presence.objects.order_by("pk").last().last_seen
            assert second.ask({"n": 1}) == {"n": 1}
            assert Presence.objects.order_by("pk").last().last_seen > before
        first.hear_until(anonymous=1)
    assert Presence.objects.count() <= 1
