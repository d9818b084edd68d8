"""What is kept: reading a room's messages and adding to them."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction

from chat import members
from chat.models import Message, Room
from chat.protocol import Post, Refused

#: Messages on a freshly opened page, and in each answer to "older".
PAGE = 50
#: The most that a returning browser is sent; beyond it the page begins anew with these.
MOST_MISSED = 200
#: Databases with several writers commit out of order: a message with a lower number may appear
#: after one with a higher number was seen.  So a returning browser is sent a few again.
OVERLAP = 20
#: The most numbers that a returning browser is told to be there still; as many as a page shows.
MOST_KEPT = 1000


@dataclass(frozen=True)
class Missed:
    messages: list[Message]
    is_complete: bool
    #: Numbers of those that the window shows and that have not been deleted, newest first.
    kept: list[int]


def find_room(label: str) -> Room | None:
    return Room.objects.filter(label=label).first()


def page_before(room: Room, before: int | None = None) -> tuple[list[Message], bool]:
    """The room's newest `PAGE` messages with a number below `before`; whether there are older."""
    found = room.messages.order_by("-id")
    if before is not None:
        found = found.filter(pk__lt=before)
    newest = list(found[: PAGE + 1])
    return in_order(newest[:PAGE]), len(newest) > PAGE


def missed_since(room: Room, first_seen: int, last_seen: int) -> Missed:
    """What came after message number `last_seen`, and `OVERLAP` messages before it."""
    newest = in_order(room.messages.order_by("-id")[: MOST_MISSED + 1])
    position = sum(message.pk <= last_seen for message in newest)
    is_complete = position > 0 or len(newest) <= MOST_MISSED
    kept = room.messages.filter(pk__range=(first_seen, last_seen)).order_by("-id")
    return Missed(
        newest[max(position - OVERLAP, 0) :][-MOST_MISSED:],
        is_complete,
        list(kept.values_list("pk", flat=True)[:MOST_KEPT]),
    )


def keep(room: Room, post: Post, member: str | None) -> tuple[Message, bool]:
    """The stored message and whether it is new: a key that is known is not stored again.

    Raises:
        Refused: If a guest's name is a member's by now.
        IntegrityError: If the room was deleted meanwhile.
    """
    # One transaction: nobody can sign up with the name between the look and the message.
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
    """Raise Refused if a member's name looks like this one."""
    if members.is_taken(handle):
        raise Refused(
            "bad_handle",
            f"{handle} is a member's name, or looks like one: sign in, or choose another.",
            key,
        )


def in_order(newest_first: Iterable[Message]) -> list[Message]:
    return list(newest_first)[::-1]
