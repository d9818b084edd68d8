"""Access that ends: a socket closes when its user logs out, or may no longer be here.

    "websocket": AuthMiddlewareStack(AccessMiddleware(URLRouter(...)))

what happens                                        noticed
log-out, of Django's or of `channels.auth`          at once: the session's sockets are closed
session deleted in the database                     at once: the same
password changed, user deactivated, saved, deleted  at once: the user's sockets are checked
groups or permissions of a user changed             at once: the same
`end_access`, `recheck_access`                      at once
session expired, deleted in a cache; `update()`     within `recheck_seconds`

"At once" is after the commit, by one message to each process that has such sockets.  A check loads
session and user as they are stored, and asks `may_stay`.  A message that is lost is made up for by
the check by time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from django.contrib.auth import get_user_model, user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from channels import DEFAULT_CHANNEL_LAYER
from channels.kit.types import Message, Receive, Scope, Send
from channels.layers.registry import get_channel_layer
from channels.middleware import BaseMiddleware
from channels.security.access_register import (
    GROUP,
    Entry,
    Register,
    digest_of,
    tell_registers,
    user_key_of,
)
from channels.security.hooks import check_hook
from channels.security.refusal import refuse
from channels.signals import session_ended
from channels.transactions import group_send_on_commit

#: In the range that RFC 6455 leaves to applications; as HTTP's 401.
ACCESS_ENDED: Final = 4401
#: Fields of a user that say nothing of what it may do.
_HARMLESS_FIELDS: Final = frozenset({"last_login"})

#: Whether the user of a scope may stay connected.
MayStay = Callable[[Scope], bool | Awaitable[bool]]


class AccessMiddleware(BaseMiddleware):
    """Closes WebSockets of users whose access has ended; inside AuthMiddleware.

    Sockets of anonymous users are not looked after: they have no access that could end.

    Args:
        code: What sockets are closed with.
        may_stay: Asked at each check, with `user` and `session` of the scope as stored by then.  A
            coroutine function, or a function, which runs in a thread and may use the database.
        recheck_seconds: How often each socket is checked by time; None: never.
        max_websockets_per_user: How many a user may have open in one process; one more is answered
            with 429.  None: any number.
    """

    def __init__(
        self,
        inner: Any,
        *,
        code: int = ACCESS_ENDED,
        may_stay: MayStay | None = None,
        recheck_seconds: float | None = 300.0,
        max_websockets_per_user: int | None = None,
    ) -> None:
        super().__init__(inner)
        if not 3000 <= code <= 4999:
            raise ValueError(f"code={code!r}: expected a close code from 3000 to 4999.")
        if recheck_seconds is not None and not recheck_seconds > 0:
            raise ValueError(f"recheck_seconds={recheck_seconds!r}: expected more than 0, or None.")
        if max_websockets_per_user is not None and max_websockets_per_user < 1:
            raise ValueError(
                f"max_websockets_per_user={max_websockets_per_user!r}: expected 1 or more, or None."
            )
        if may_stay is not None:
            check_hook("may_stay", may_stay, "(scope)")
        self.code = code
        self.may_stay = may_stay
        self.recheck_seconds = recheck_seconds
        self.max_websockets_per_user = max_websockets_per_user
        self._open: Counter[str] = Counter()
        listen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:  # type: ignore[override]
        """Look after the connection while the inner application serves it.

        Raises:
            ValueError: If the scope has no user.
        """
        if scope["type"] != "websocket":
            return await self.inner(scope, receive, send)
        if "user" not in scope:
            raise ValueError(
                "AccessMiddleware cannot find user in scope: put AuthMiddleware around it."
            )
        if not getattr(scope["user"], "is_authenticated", False):
            return await self.inner(scope, receive, send)
        user, most = user_key_of(scope["user"]), self.max_websockets_per_user
        if most is not None and self._open[user] >= most:
            return await refuse(
                scope, send, 429, f"its user has {most} WebSockets", retry_after="10"
            )
        self._open[user] += 1
        try:
            return await self._look_after(scope, receive, send)
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

    async def _look_after(self, scope: Scope, receive: Receive, send: Send) -> Any:
        register = Register.of_running_loop()
        entry = Entry(scope, send, self.code, self.may_stay)
        async with register.looking_after(entry, self.recheck_seconds) as may_enter:
            if may_enter:
                return await self.inner(scope, receive, send)
            return await send({"type": "websocket.close", "code": self.code})


def end_access(*, user: Any = None, session_key: str | None = None) -> None:
    """Close a user's sockets, or a session's, in every process, once the transaction has committed.

    For sync code; a client may connect again unless what it is refused by has changed too.

    Args:
        user: A user, or its primary key.

    Raises:
        TypeError: Unless exactly one of the two is given.
    """
    if (user is None) == (session_key is None):
        raise TypeError("end_access() takes either a user or a session_key.")
    if session_key is not None:
        _tell({"type": "access.ended", "session": digest_of(session_key)})
    else:
        _tell({"type": "access.ended", "user": user_key_of(user)})


def recheck_access(user: Any) -> None:
    """Have a user's sockets checked in every process, once the transaction has committed.

    For sync code, when something has changed that `may_stay` looks at.

    Args:
        user: A user, or its primary key.
    """
    _tell({"type": "access.recheck", "user": user_key_of(user)})


def _tell(message: Message) -> None:
    if get_channel_layer(DEFAULT_CHANNEL_LAYER) is None:
        transaction.on_commit(partial(tell_registers, message), robust=True)
    else:
        # Robust: a log-out does not fail because the broker is away.
        group_send_on_commit(GROUP, message, robust=True)


def listen() -> None:
    """Tell of log-outs and changed users from this process.

    The middleware calls it.  Processes without one (a WSGI server, commands, Celery) that log out
    or change users should too: call it in the `ready` of an application of yours.
    """
    user_logged_out.connect(_on_logged_out, dispatch_uid="channels.access.logged_out")
    session_ended.connect(_on_session_ended, dispatch_uid="channels.access.session_ended")
    post_delete.connect(_on_deleted, dispatch_uid="channels.access.deleted")
    post_save.connect(_on_saved, dispatch_uid="channels.access.saved")
    m2m_changed.connect(_on_permitted, dispatch_uid="channels.access.permitted")


def _on_logged_out(request: Any, **_: object) -> None:
    # Sent before the session goes, which has its key no more afterwards.
    key = getattr(getattr(request, "session", None), "session_key", None)
    if key:
        end_access(session_key=key)


def _on_session_ended(session_key: str, **_: object) -> None:
    end_access(session_key=session_key)


def _on_deleted(instance: Any, **_: object) -> None:
    # Not at import: asgi.py names this module before the models are loaded.
    from django.contrib.sessions.base_session import AbstractBaseSession  # noqa: PLC0415

    if isinstance(instance, AbstractBaseSession):
        end_access(session_key=instance.session_key)
    elif isinstance(instance, get_user_model()):
        end_access(user=instance.pk)


def _on_saved(instance: Any, created: bool, update_fields: Any, **_: object) -> None:
    if created or not isinstance(instance, get_user_model()):
        return
    if update_fields is None or not _HARMLESS_FIELDS.issuperset(update_fields):
        recheck_access(instance)


def _on_permitted(sender: Any, instance: Any, action: str, pk_set: Any, **_: object) -> None:
    """Groups or permissions of users have changed; `may_stay` may look at them."""
    users = get_user_model()
    names = ("groups", "user_permissions")
    through = {getattr(getattr(users, name, None), "through", None): name for name in names}
    if sender not in through:
        return
    if isinstance(instance, users):
        if action.startswith("post_"):
            recheck_access(instance)
        return
    # From the other side: `group.user_set.remove(user)`, or `clear()`, which names nobody after it.
    if action == "pre_clear":
        had = users._default_manager.filter(**{through[sender]: instance})
        pk_set = had.values_list("pk", flat=True)
    elif not action.startswith("post_"):
        return
    for key in pk_set or ():
        recheck_access(key)
