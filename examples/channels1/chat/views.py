from django.shortcuts import render

from chat.models import Room


def about(request):
    """The rooms that there are, and a form that goes to a new one."""
    return render(request, "chat/about.html", {"rooms": Room.objects.order_by("label")[:100]})


def chat_room(request, label):
    """A room with its last 50 messages, the most recent one last; made at the first visit."""
    room, _ = Room.objects.get_or_create(label=label, defaults={"name": label})
    messages = reversed(room.messages.order_by("-timestamp", "-pk")[:50])
    return render(request, "chat/room.html", {"room": room, "messages": messages})
