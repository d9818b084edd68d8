import random

from django.contrib.auth import login
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_safe

from chat import protocol
from chat.forms import TAKEN, RoomForm, SignUpForm
from chat.history import page_before
from chat.models import Room

#: Rooms on the front page and beside a room.
MAX_ROOMS = 100
MAX_ROOMS_IN_SIDEBAR = 30


@require_http_methods(["GET", "HEAD", "POST"])
def rooms(request: HttpRequest) -> HttpResponse:
    form = RoomForm(request.POST or None, initial={"name": request.GET.get("name", "")})
    if request.method == "POST" and form.is_valid():
        return redirect(form.room())
    context = {"form": form, "rooms": Room.objects.with_latest()[:MAX_ROOMS]}
    return render(request, "chat/rooms.html", context, status=400 if form.errors else 200)


@require_safe
def room(request: HttpRequest, label: str) -> HttpResponse:
    here = get_object_or_404(Room, label=label)
    messages, has_older = page_before(here)
    context = {
        "room": here,
        "messages_shown": messages,
        "has_older": has_older,
        "rooms": Room.objects.with_latest()[:MAX_ROOMS_IN_SIDEBAR],
        "room_settings": {
            "label": here.label,
            "user": request.user.get_username() if request.user.is_authenticated else None,
            "maxTextLength": protocol.MAX_TEXT_LENGTH,
        },
    }
    if not request.user.is_authenticated:
        # In the session: a guest has the same name after a reload and in every room.
        suggested = f"Guest {random.randint(1000, 9999)}"
        context["guest_name"] = request.session.setdefault("guest_name", suggested)
    return render(request, "chat/room.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    after = request.POST.get("next") or request.GET.get("next") or ""
    if not url_has_allowed_host_and_scheme(after, {request.get_host()}, request.is_secure()):
        after = reverse("rooms")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            login(request, form.save())
        except IntegrityError:
            form.add_error("username", TAKEN)
        else:
            return redirect(after)
    context = {"form": form, "next": after}
    return render(request, "registration/signup.html", context, status=400 if form.errors else 200)
