import secrets

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from chat.models import Room
from chat.protocol import MOST_HANDLE, clean_handle

LABEL_LENGTH = 50


class RoomForm(forms.Form):
    """Enter a room by its name; it is made if there is none."""

    name = forms.CharField(
        max_length=80,
        label="Room name",
        error_messages={"required": "Give the room a name."},
    )

    def clean_name(self) -> str:
        name = clean_handle(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("Give the room a name that can be seen.")
        return name

    def room(self) -> Room:
        name = self.cleaned_data["name"]
        return (
            Room.objects.filter(name__iexact=name).first()
            or Room.objects.filter(label=name.lower()).first()
            or self._new_room(name)
        )

    def _new_room(self, name: str) -> Room:
        # A name without Latin letters or digits has no slug, and two names may share one.
        label = slugify(name)[:LABEL_LENGTH].strip("-_") or f"room-{secrets.token_hex(4)}"
        try:
            with transaction.atomic():
                return Room.objects.create(label=label, name=name)
        except IntegrityError:
            label = f"{label[: LABEL_LENGTH - 9]}-{secrets.token_hex(4)}"
            return Room.objects.create(label=label, name=name)


class SignUpForm(UserCreationForm):
    def clean_username(self) -> str:
        username = super().clean_username()
        if len(username) > MOST_HANDLE:
            raise forms.ValidationError(f"A name has at most {MOST_HANDLE} characters.")
        return username
