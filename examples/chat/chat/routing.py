from django.urls import path

from chat.consumers import RoomConsumer

websocket_urlpatterns = [
    path("ws/rooms/<slug:label>/", RoomConsumer.as_asgi()),
]
