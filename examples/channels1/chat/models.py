from django.db import models
from django.utils import timezone


class Room(models.Model):
    """A place to talk, made by its first visitor."""

    name = models.TextField()
    label = models.SlugField(unique=True)

    def __str__(self):
        return self.label


class Message(models.Model):
    """What somebody said in a room."""

    room = models.ForeignKey(Room, related_name="messages", on_delete=models.CASCADE)
    handle = models.TextField()
    message = models.TextField()
    timestamp = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self):
        return f"{self.handle}: {self.message}"

    def as_dict(self):
        """The message as the page shows it."""
        return {
            "handle": self.handle,
            "message": self.message,
            "timestamp": f"{self.timestamp:%H:%M}",
        }
