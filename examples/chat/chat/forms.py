import secrets
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from chat import members, names
from chat.models import Room

LABEL_LENGTH = 50
MAX_ROOM_NAME_LENGTH = 80
TAKEN = "A member has this name, or one that looks like it."


class RoomForm(forms.Form):
    """Enter a room by its name; a new name creates a room."""

    name = forms.CharField(label="Room name", error_messages={"required": "Give the room a name."})

    def clean_name(self) -> str:
        return _checked(names.visible, self.cleaned_data["name"], MAX_ROOM_NAME_LENGTH)

    def room(self) -> Room:
        name = self.cleaned_data["name"]
        return (
            Room.objects.filter(name__iexact=name).first()
            or Room.objects.filter(label=name.lower()).first()
            or self._new_room(name)
        )

    def _new_room(self, name: str) -> Room:
        # A name without Latin letters and digits has no slug, and two names may share one.
        label = slugify(name)[:LABEL_LENGTH].strip("-_") or f"room-{secrets.token_hex(4)}"
        try:
            with transaction.atomic():
                return Room.objects.create(label=label, name=name)
        except IntegrityError:
            label = f"{label[: LABEL_LENGTH - 9]}-{secrets.token_hex(4)}"
            return Room.objects.create(label=label, name=name)


class SignUpForm(UserCreationForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "username"
        ].help_text = f"At most {names.MAX_NAME_LENGTH} letters, digits and @ . + - _"
        self.fields["password1"].help_text = "At least 8 characters, not only digits."
        self.fields["password2"].help_text = ""

    def clean_username(self) -> str:
        # Instead of Django's check, which compares the exact letters, ignoring case.
        username = _checked(names.clean, self.cleaned_data["username"])
        if members.is_taken(username):
            raise forms.ValidationError(TAKEN)
        return username

    def save(self, commit: bool = True) -> Any:
        """Create the account.

        Raises:
            IntegrityError: If a member with a similar name signed up after the form was checked.
        """
        with transaction.atomic():
            user = super().save(commit)
            if not members.claim(user):
                raise IntegrityError(TAKEN)
        return user


def _checked(check: Callable[..., str], *arguments: Any) -> str:
    try:
        return check(*arguments)
    except names.BadName as error:
        raise forms.ValidationError(str(error)) from None
