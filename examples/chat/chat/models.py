import uuid
import zlib

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

#: Number of colours in the style sheet; a name always gets the same one.
HUES = 12


def hue_of(name: str) -> int:
    return zlib.crc32(name.casefold().encode()) % HUES


class RoomQuerySet(models.QuerySet["Room"]):
    def with_latest(self) -> "RoomQuerySet":
        """Rooms with the handle, text and time of their latest message, the latest first."""
        latest = Message.objects.filter(room=models.OuterRef("pk")).order_by("-id")
        return self.annotate(
            latest_handle=models.Subquery(latest.values("handle")[:1]),
            latest_text=models.Subquery(latest.values("text")[:1]),
            latest_time=models.Subquery(latest.values("time")[:1]),
        ).order_by(models.F("latest_time").desc(nulls_last=True), "name")


class Room(models.Model):
    label = models.SlugField(max_length=50, unique=True, help_text="The room's part of its URL.")
    name = models.CharField(max_length=80)

    objects = RoomQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("room", args=[self.label])

    @property
    def group(self) -> str:
        """The channel group of everyone who is in the room."""
        return f"room.{self.label}"

    @property
    def hue(self) -> int:
        return hue_of(self.label)


class Message(models.Model):
    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    #: Made by the browser: a message sent again after a lost connection is stored once.
    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    handle = models.CharField(max_length=150)
    #: Stored with the message: a guest may have used the name before its member signed up.
    is_member = models.BooleanField(default=False)
    text = models.TextField(max_length=2000)
    time = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=["room", "id"], name="message_room_id"),)

    def __str__(self) -> str:
        return f"{self.handle}: {self.text[:60]}"

    @property
    def hue(self) -> int:
        return hue_of(self.handle)


class MemberName(models.Model):
    """A key of a member's name, which no other name may share: see `chat.names`."""

    key = models.CharField(max_length=150, primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)

    def __str__(self) -> str:
        return self.key
