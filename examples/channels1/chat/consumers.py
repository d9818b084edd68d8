"""A socket of the chat: into its room, each message to the database and to everybody there."""

import json

from channels import Group
from channels.sessions import channel_session, enforce_ordering

from chat.models import Room

#: The longest name and the longest message.
HANDLE_LENGTH = 40
MESSAGE_LENGTH = 2000


@enforce_ordering
@channel_session
def ws_connect(message, label):
    """Let a socket in whose room exists; its page has made the room."""
    if not Room.objects.filter(label=label).exists():
        message.reply_channel.send({"close": True})
        return
    message.reply_channel.send({"accept": True})
    Group(f"chat-{label}").add(message.reply_channel)
    message.channel_session["room"] = label


@enforce_ordering
@channel_session
def ws_receive(message):
    """Store what was said and tell the room; what is no message is passed over."""
    label = message.channel_session.get("room")
    said = read(message.get("text"))
    if label is None or said is None:
        return
    room = Room.objects.get(label=label)
    stored = room.messages.create(**said)
    Group(f"chat-{label}").send({"text": json.dumps(stored.as_dict())})


@enforce_ordering
@channel_session
def ws_disconnect(message):
    """Take a socket that has closed out of its room."""
    if label := message.channel_session.get("room"):
        Group(f"chat-{label}").discard(message.reply_channel)


def read(text):
    """The handle and the message in a text from a page, or None."""
    try:
        found = json.loads(text or "")
        handle, message = found["handle"].strip(), found["message"].strip()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not (0 < len(handle) <= HANDLE_LENGTH and 0 < len(message) <= MESSAGE_LENGTH):
        return None
    return {"handle": handle, "message": message}
