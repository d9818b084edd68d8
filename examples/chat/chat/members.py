"""Whose name is whose: nobody else, guest or member, goes by a name that looks like a member's."""

from typing import Any

from chat import names
from chat.models import MemberName


def is_taken(name: str) -> bool:
    return MemberName.objects.filter(key__in=names.keys_of(name)).exists()


def claim(user: Any) -> bool:
    """Keep the user's name for the user: True if all of it is theirs, False if another had it.

    Who had a name first keeps it: accounts that are made elsewhere (createsuperuser, the admin)
    may look like one that exists, and then guests are kept from both by the first one's.
    """
    keys = names.keys_of(user.get_username())
    MemberName.objects.filter(user=user).exclude(key__in=keys).delete()
    # All of them, in one order: of two who claim at once, one waits for the other.
    owned = [_claim(user, key) for key in sorted(keys)]
    return all(owned)


def _claim(user: Any, key: str) -> bool:
    found, _ = MemberName.objects.get_or_create(key=key, defaults={"user": user})
    return found.user_id == user.pk
