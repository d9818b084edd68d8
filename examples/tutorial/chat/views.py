from django.shortcuts import redirect, render
from django.utils.text import slugify


def index(request):
    room_name = slugify(request.GET.get("room", ""))
    if room_name:
        return redirect("room", room_name=room_name)
    return render(request, "chat/index.html")


def room(request, room_name):
    return render(request, "chat/room.html", {"room_name": room_name})
