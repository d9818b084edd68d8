"""The programs that two introductions to Channels 1 show, as they stand.

Lines that a page ran together are lines again.  What today's Django and Python force: a ForeignKey
has on_delete, and a query string is bytes, which Python 3 does not take for text.
"""

from __future__ import annotations

from typing import Final

ASGI: Final = """\
import os
from channels.asgi import get_channel_layer
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")
channel_layer = get_channel_layer()
"""

HTTP_CONSUMERS: Final = """\
from django.http import HttpResponse
from channels.handler import AsgiHandler
def http_consumer(message):
    # Make standard HTTP response - access ASGI path attribute directly
    response = HttpResponse("Hello world! You asked for %s" % message.content['path'])
    # Encode that response into message format (ASGI)
    for chunk in AsgiHandler.encode_response(response):
            message.reply_channel.send(chunk)
"""
HTTP_ROUTING: Final = """\
from channels.routing import route
channel_routing = [
    route("http.request", "myapp.consumers.http_consumer"),
]
"""

ECHO_CONSUMERS: Final = """\
def ws_message(message):
    # ASGI WebSocket packet-received and send-packet message types
    # both have a "text" key for their textual data.
    message.reply_channel.send({
            "text": message.content['text'],
        })
"""
ECHO_ROUTING: Final = """\
from channels.routing import route
from myapp.consumers import ws_message
channel_routing = [
    route("websocket.receive", ws_message),
]
"""

LIVEBLOG_CONSUMERS: Final = """\
import json
from channels import Group
from django.db.models.signals import post_save
from django.dispatch import receiver
from myapp.models import BlogUpdate

@receiver(post_save, sender=BlogUpdate)
def send_update(sender, instance, **kwargs):
    Group("liveblog").send({
        "text": json.dumps({
            "id": instance.id,
            "content": instance.content
        })
})
# Connected to websocket.connect
def ws_connect(message):
    # Add to reader group
    Group("liveblog").add(message.reply_channel)
    # Accept the connection request
    message.reply_channel.send({"accept": True})

# Connected to websocket.disconnect
def ws_disconnect(message):
    # Remove from reader group on clean disconnect
    Group("liveblog").discard(message.reply_channel)
"""
LIVEBLOG_ROUTING: Final = """\
from channels.routing import route
from myapp.consumers import ws_connect, ws_disconnect
channel_routing = [
    route("websocket.connect", ws_connect),
    route("websocket.disconnect", ws_disconnect),
]
"""

CHAT_CONSUMERS: Final = """\
from channels import Group

# Connected to websocket.connect
def ws_add(message):
    # Accept the connection
    message.reply_channel.send({"accept": True})
    # Add to the chat group
    Group("chat").add(message.reply_channel)

# Connected to websocket.receive
def ws_message(message):
    Group("chat").send({ "text": "[user] %s" % message.content['text'], })

# Connected to websocket.disconnect
def ws_disconnect(message):
    Group("chat").discard(message.reply_channel)
"""
CHAT_ROUTING: Final = """\
from channels.routing import route
from myapp.consumers import ws_add, ws_message, ws_disconnect
channel_routing = [
    route("websocket.connect", ws_add),
    route("websocket.receive", ws_message),
    route("websocket.disconnect", ws_disconnect),
]
"""

ROOMS_CONSUMERS: Final = """\
from channels import Group
from channels.sessions import channel_session
from urllib.parse import parse_qs

# Connected to websocket.connect
@channel_session
def ws_connect(message, room_name):
    # Accept connection
    message.reply_channel.send({"accept": True})
    # Parse the query string
    params = parse_qs(message.content["query_string"].decode())
    if "username" in params:
        # Set the username in the session
        message.channel_session["username"] = params["username"]
        # Add the user to the room_name group
        Group("chat-%s" % room_name).add(message.reply_channel)
    else:
        # Close the connection.
        message.reply_channel.send({"close": True})

# Connected to websocket.receive
@channel_session
def ws_message(message, room_name):
    Group("chat-%s" % room_name).send({
        "text": message["text"],
        "username": message.channel_session["username"]
    })
# Connected to websocket.disconnect
@channel_session
def ws_disconnect(message, room_name):
    Group("chat-%s" % room_name).discard(message.reply_channel)
"""
ROOMS_ROUTING: Final = """\
from channels.routing import route
from myapp.consumers import ws_connect, ws_message, ws_disconnect
channel_routing = [
    route("websocket.connect", ws_connect, path=r"^/(?P<room_name>[a-zA-Z0-9_]+)/$"),
    route("websocket.receive", ws_message, path=r"^/(?P<room_name>[a-zA-Z0-9_]+)/$"),
    route("websocket.disconnect", ws_disconnect, path=r"^/(?P<room_name>[a-zA-Z0-9_,!]+)/$"),
]
"""

USERS_CONSUMERS: Final = """\
from channels import Channel, Group
from channels.sessions import channel_session
from channels.auth import channel_session_user, channel_session_user_from_http
from channels.security.websockets import allowed_hosts_only

# Connected to websocket.connect
@allowed_hosts_only
@channel_session_user_from_http
def ws_add(message):
    # Accept connection
    message.reply_channel.send({"accept": True})
    # Add them to the right group
    Group("chat-%s" % message.user.username[0]).add(message.reply_channel)

# Connected to websocket.receive
@channel_session_user
def ws_message(message):
    Group("chat-%s" % message.user.username[0]).send({
            "text": message['text'],
        })

# Connected to websocket.disconnect
@channel_session_user
def ws_disconnect(message):
    Group("chat-%s" % message.user.username[0]).discard(message.reply_channel)
"""

MODELS_CONSUMERS: Final = """\
from channels import Channel, Group
from channels.sessions import channel_session
from .models import ChatMessage

# Connected to chat-messages
def msg_consumer(message):
    # Save to model
    room = message.content['room']
    ChatMessage.objects.create(
        room=room,
        message=message.content['message'],
    )
    # Broadcast to listening sockets
    Group("chat-%s" % room).send({
    "text": message.content['message'],
    })

# Connected to websocket.connect
@channel_session
def ws_connect(message):
    # Work out room name from path (ignore slashes)
    room = message.content['path'].strip("/")
    # Save room in session and add us to the group
    message.channel_session['room'] = room
    Group("chat-%s" % room).add(message.reply_channel)
    # Accept the connection request
    message.reply_channel.send({"accept": True})

# Connected to websocket.receive
@channel_session
def ws_message(message):
    # Stick the message onto the processing queue
    Channel("chat-messages").send({
            "room": message.channel_session['room'],
            "message": message['text'],
        })

# Connected to websocket.disconnect
@channel_session
def ws_disconnect(message):
    Group("chat-%s" % message.channel_session['room']).discard(message.reply_channel)
"""
MODELS_ROUTING: Final = """\
from channels.routing import route
from myapp.consumers import ws_connect, ws_message, ws_disconnect, msg_consumer
channel_routing = [
    route("websocket.connect", ws_connect),
    route("websocket.receive", ws_message),
    route("websocket.disconnect", ws_disconnect),
    route("chat-messages", msg_consumer),
]
"""

#: What the programs above say of their models, and what they leave out.
MODELS: Final = """\
from django.db import models


class BlogUpdate(models.Model):
    content = models.TextField()


class ChatMessage(models.Model):
    room = models.TextField()
    message = models.TextField()
"""
APPS: Final = """\
from django.apps import AppConfig


class MyappConfig(AppConfig):
    name = "myapp"

    def ready(self):
        import myapp.consumers
"""

ROOM_MODELS: Final = """\
from django.db import models
from django.utils import timezone

class Room(models.Model):
    name = models.TextField()
    label = models.SlugField(unique=True)

class Message(models.Model):
    room = models.ForeignKey(Room, related_name='messages', on_delete=models.CASCADE)
    handle = models.TextField()
    message = models.TextField()
    timestamp = models.DateTimeField(default=timezone.now, db_index=True)
"""
ROOM_VIEWS: Final = """\
from django.shortcuts import render
from .models import Room

def chat_room(request, label):
    # If the room with the given label doesn't exist, automatically create it
    # upon first visit (a la etherpad).
    room, created = Room.objects.get_or_create(label=label)

    # We want to show the last 50 messages, ordered most-recent-last
    messages = reversed(room.messages.order_by('-timestamp')[:50])

    return render(request, "chat/room.html", {
        'room': room,
        'messages': messages,
    })
"""
ROOM_PAGE: Final = """\
{{ room.label }}:
{% for message in messages %}{{ message.handle }}={{ message.message }}
{% endfor %}
"""
ROOM_URLS: Final = """\
from django.urls import path

from chat.views import chat_room

urlpatterns = [path("<slug:label>/", chat_room)]
"""
ROOM_ROUTING: Final = """\
from . import consumers

channel_routing = {
    'websocket.connect': consumers.ws_connect,
    'websocket.receive': consumers.ws_receive,
    'websocket.disconnect': consumers.ws_disconnect,
}
"""
#: The text shows the first; the other two it describes.  It is older than the "accept" of later
#: releases: CHANNELS_ACCEPT_UNANSWERED is set.
ROOM_CONSUMERS: Final = """\
import json
from channels import Group
from channels.sessions import channel_session
from .models import Room

@channel_session
def ws_connect(message):
    prefix, label = message['path'].strip('/').split('/')
    room = Room.objects.get(label=label)
    Group('chat-' + label).add(message.reply_channel)
    message.channel_session['room'] = room.label

@channel_session
def ws_receive(message):
    label = message.channel_session['room']
    room = Room.objects.get(label=label)
    data = json.loads(message['text'])
    room.messages.create(handle=data['handle'], message=data['message'])
    Group('chat-' + label).send({'text': json.dumps(data)})

@channel_session
def ws_disconnect(message):
    Group('chat-' + message.channel_session['room']).discard(message.reply_channel)
"""
