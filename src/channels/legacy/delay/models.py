"""The delayed messages, one row each until it is sent."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Self

from django.db import models
from django.utils import timezone

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import ChannelFull
from channels.legacy.asgi import channel_layers
from channels.legacy.channel import Channel


class DelayedMessageQuerySet(models.QuerySet["DelayedMessage"]):
    """Delayed messages."""

    def is_due(self) -> Self:
        """Those whose time has come."""
        return self.filter(due_date__lte=timezone.now())


class DelayedMessage(models.Model):
    """A message for a channel, and when to send it."""

    due_date = models.DateTimeField(db_index=True)
    channel_name = models.CharField(max_length=512)
    #: JSON.
    content = models.TextField()

    objects = DelayedMessageQuerySet.as_manager()

    class Meta:
        app_label = "delay"

    def __str__(self) -> str:
        return f"to {self.channel_name} at {self.due_date}"

    @property
    def delay(self) -> float:
        """Milliseconds from now until it is due; negative if its time has passed."""
        return (self.due_date - timezone.now()) / timedelta(milliseconds=1)

    @delay.setter
    def delay(self, milliseconds: float) -> None:
        self.due_date = timezone.now() + timedelta(milliseconds=milliseconds)

    def claim(self, until: datetime) -> bool:
        """Move the due date of the row, unless another process has; True if this one did.

        Of several processes one sends the message; if that ends meanwhile, it is due again `until`.
        """
        rows = type(self).objects.filter(pk=self.pk, due_date=self.due_date)
        claimed = bool(rows.update(due_date=until))
        if claimed:
            self.due_date = until
        return claimed

    def send(self, channel_layer: Any = None, requeue_delay: float = 1000) -> None:
        """Send the message now and delete the row.

        Args:
            channel_layer: None takes the default one.
            requeue_delay: Milliseconds after which it is due again if the channel is full.
        """
        layer = channel_layer or channel_layers[DEFAULT_CHANNEL_LAYER]
        channel = Channel(self.channel_name, channel_layer=layer)
        try:
            channel.send(json.loads(self.content), immediately=True)
        except ChannelFull:
            self.delay = requeue_delay
            self.save()
        else:
            self.delete()
