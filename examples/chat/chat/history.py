"""A room's stored messages: reading them and adding to them."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from chat import members
from chat.models import Message, Room
from chat.protocol import Post, Refused

#: Messages on a new page, and in each answer to "older".
PAGE = 50
#: Messages sent to a browser that reconnects; if it missed more, its page starts anew with these.
MAX_MISSED = 200
#: Messages sent again to a browser that reconnects: databases with several writers commit out of
#: order, so a message with a lower id may appear after one with a higher id was sent.
OVERLAP = 20
#: Ids in "kept"; a page shows as many messages.
MAX_KEPT = 1000


@dataclass(frozen=True)
class Missed:
    messages: list[Message]
    is_complete: bool
    #: Ids of the messages that the window shows and that are not deleted, newest first.
    kept: list[int]


def find_room(label: str) -> Room | None:
    return Room.objects.filter(label=label).first()


def page_before(room: Room, before: int | None = None) -> tuple[list[Message], bool]:
    """The `PAGE` messages before the id `before`, and whether there are older ones."""
    found = room.messages.order_by("-id")
    if before is not None:
        found = found.filter(pk__lt=before)
    newest = list(found[: PAGE + 1])
    return in_order(newest[:PAGE]), len(newest) > PAGE


def missed_since(room: Room, first_seen: int, last_seen: int) -> Missed:
    """The messages after the id `last_seen`, and `OVERLAP` messages before it."""
    newest = in_order(room.messages.order_by("-id")[: MAX_MISSED + 1])
    position = sum(message.pk <= last_seen for message in newest)
    is_complete = position > 0 or len(newest) <= MAX_MISSED
    kept = room.messages.filter(pk__range=(first_seen, last_seen)).order_by("-id")
    return Missed(
        newest[max(position - OVERLAP, 0) :][-MAX_MISSED:],
        is_complete,
        list(kept.values_list("pk", flat=True)[:MAX_KEPT]),
    )


def keep(room: Room, post: Post, member: str | None) -> tuple[Message, bool]:
    """Store a post; return the message and whether it is new: each key is stored once.

    Raises:
        Refused: If a member has the guest's name, or one that looks like it.
        IntegrityError: If the room was deleted.
    """
    # One transaction: nobody can sign up with the name between the check and the insert.
    with transaction.atomic():
        known = Message.objects.filter(key=post.key).first()
        if known:
            return known, False
        if member is None:
            check_free(post.handle, str(post.key))
        return Message.objects.get_or_create(
            key=post.key,
            defaults={
                "room": room,
                "handle": member or post.handle,
                "is_member": member is not None,
                "text": post.text,
            },
        )


def check_free(handle: str, key: str | None = None) -> None:
    """Raise Refused if a member has this name, or one that looks like it."""
    if members.is_taken(handle):
        raise Refused(
            "bad_handle",
            f"{handle} is a member's name, or looks like one: sign in, or choose another.",
            key,
        )


def in_order(newest_first: Iterable[Message]) -> list[Message]:
    return list(newest_first)[::-1]
