"""What is kept: reading a room's messages and adding to them."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth import get_user_model

from chat.models import Message, Room
from chat.protocol import Post

#: Messages on a freshly opened page.
PAGE = 50
#: The most that a returning browser is sent; beyond it the page says that some are left out.
MOST_MISSED = 200
#: Databases with several writers commit out of order: a message with a lower number may appear
#: after one with a higher number was seen.  So a returning browser is sent a few again.
OVERLAP = 20


@dataclass(frozen=True)
class Missed:
    messages: list[Message]
    is_complete: bool


def find_room(label: str) -> Room | None:
    return Room.objects.filter(label=label).first()


def last_messages(room: Room, count: int = PAGE) -> list[Message]:
    """The room's newest messages, the oldest of them first."""
    return in_order(room.messages.order_by("-id")[:count])


def missed_since(room: Room, last_seen: int) -> Missed:
    """What came after message number `last_seen`, and `OVERLAP` messages before it."""
    newest = in_order(room.messages.order_by("-id")[: MOST_MISSED + 1])
    position = sum(message.pk <= last_seen for message in newest)
    is_complete = position > 0 or len(newest) <= MOST_MISSED
    return Missed(newest[max(position - OVERLAP, 0) :][-MOST_MISSED:], is_complete)


def keep(room: Room, handle: str, post: Post) -> tuple[Message, bool]:
    """The stored message and whether it is new: a key that is known is not stored again.

    Raises:
        IntegrityError: If the room was deleted meanwhile.
    """
    return Message.objects.get_or_create(
        key=post.key, defaults={"room": room, "handle": handle, "text": post.text}
    )


def belongs_to_a_member(handle: str) -> bool:
    return get_user_model().objects.filter(username__iexact=handle).exists()


def in_order(newest_first: Iterable[Message]) -> list[Message]:
    return list(newest_first)[::-1]
