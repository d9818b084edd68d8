"""What happens outside a room and concerns the windows that are in it."""

from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import post_delete
from django.dispatch import receiver
from django.http import HttpRequest

from chat.consumers import session_group
from chat.models import Room


@receiver(user_logged_out)
def close_windows(request: HttpRequest | None, **kwargs: Any) -> None:
    """Windows of this browser that are open elsewhere must not go on posting under the name."""
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key:
        tell(session_group(session_key), "signed.out")


@receiver(post_delete, sender=Room)
def close_room(instance: Room, **kwargs: Any) -> None:
    tell(instance.group, "room.deleted")


def tell(group: str, what: str) -> None:
    async_to_sync(get_channel_layer().group_send)(group, {"type": what})
