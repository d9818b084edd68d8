"""Members' names are reserved: no guest or other member may use a name that looks like one."""

from typing import Any

from chat import names
from chat.models import MemberName


def is_taken(name: str) -> bool:
    return MemberName.objects.filter(key__in=names.keys_of(name)).exists()


def claim(user: Any) -> bool:
    """Reserve the user's name; False if another member has one that looks like it.

    The first member keeps the name.  Accounts made by createsuperuser or in the admin may look
    like an existing one; guests may use neither name.
    """
    keys = names.keys_of(user.get_username())
    MemberName.objects.filter(user=user).exclude(key__in=keys).delete()
    # Sorted: two transactions that claim the same keys wait for each other instead of deadlocking.
    owned = [_claim(user, key) for key in sorted(keys)]
    return all(owned)


def _claim(user: Any, key: str) -> bool:
    found, _ = MemberName.objects.get_or_create(key=key, defaults={"user": user})
    return found.user_id == user.pk
