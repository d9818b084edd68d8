"""Tell open windows of changes that were made elsewhere: in the admin, by a sign-out.

Windows are told after the commit, so that they find the change in the database.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import async_to_sync
from channels.layers import broadcast, get_channel_layer
from channels.security.access import end_access
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from chat import members, protocol
from chat.consumers import session_group
from chat.models import Message, Room

#: Ids in one "deleted" event.
MAX_DELETED_IDS = 1000
#: The queryset being deleted -> the ids of its messages by room.  They are sent together: one
#: event for each message could exceed a channel's capacity.
_under_way: WeakKeyDictionary[QuerySet[Any], dict[int, list[int]]] = WeakKeyDictionary()


@receiver(post_delete, sender=Session)
def end_session(instance: Session, **kwargs: Any) -> None:
    """Close the windows that a browser has as a guest: its session goes as somebody signs in."""
    tell(session_group(instance.session_key), "session.ended")


@receiver(post_save, sender=get_user_model())
def change_user(instance: Any, created: bool, update_fields: Any, **kwargs: Any) -> None:
    if update_fields is not None and {*update_fields} == {"last_login"}:
        return
    members.claim(instance)
    if not created and (update_fields is None or "username" in update_fields):
        # Its windows would go on under the old name; of the rest AccessMiddleware takes care.
        end_access(user=instance)


@receiver(post_delete, sender=Room)
def close_room(instance: Room, **kwargs: Any) -> None:
    tell(instance.group, "room.deleted")


@receiver(post_save, sender=Message)
def show_edited(instance: Message, created: bool, **kwargs: Any) -> None:
    if not created:
        event = protocol.message_event(instance)
        after_commit(partial(broadcast, instance.room.group, json=event))


@receiver(post_delete, sender=Message)
def withdraw(instance: Message, origin: Any, **kwargs: Any) -> None:
    """Remove deleted messages from open windows; a window that reconnects gets "kept"."""
    if getattr(origin, "model", type(origin)) is Room:
        return
    is_one_of_many = isinstance(origin, QuerySet)
    by_room = _under_way.setdefault(origin, {}) if is_one_of_many else {}
    if instance.room_id in by_room:
        by_room[instance.room_id].append(instance.pk)
    else:
        ids = by_room[instance.room_id] = [instance.pk]
        after_commit(partial(tell_deleted, instance.room.group, ids))


async def tell_deleted(group: str, ids: list[int]) -> None:
    for start in range(0, len(ids), MAX_DELETED_IDS):
        event = protocol.deleted_event(ids[start : start + MAX_DELETED_IDS])
        await broadcast(group, json=event)


def tell(group: str, what: str) -> None:
    after_commit(partial(get_channel_layer().group_send, group, {"type": what}))


def after_commit(send: Callable[[], Any]) -> None:
    def run() -> None:
        async_to_sync(send)()

    # Robust: if the channel layer fails, the change is stored nevertheless, and shown on a reload.
    transaction.on_commit(run, robust=True)
