"""channelsmultiplexer: several consumers behind one WebSocket, each with a stream of its own."""

REQUIREMENTS = ["channelsmultiplexer"]
APPS = []


def application(django):
    from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
    from django.urls import path

    from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class Echo(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content, **kwargs):
            await self.send_json({"echo": content})

    class News(JsonWebsocketConsumer):
        groups = ["news"]

        def news(self, event):
            self.send_json(event["text"])

    demultiplexer = AsyncJsonWebsocketDemultiplexer.as_asgi(
        echo=Echo.as_asgi(), news=News.as_asgi()
    )
    return ProtocolTypeRouter(
        {"http": django, "websocket": URLRouter([path("ws/", demultiplexer)])}
    )


def drive(site):
    from asgiref.sync import async_to_sync

    from channels.layers import get_channel_layer

    with site.socket("/ws/") as socket:
        heard = socket.ask({"stream": "echo", "payload": {"n": 1}})
        assert heard == {"stream": "echo", "payload": {"echo": {"n": 1}}}, heard
        async_to_sync(get_channel_layer().group_send)("news", {"type": "news", "text": "hello"})
        assert socket.hear() == {"stream": "news", "payload": "hello"}
