"""The sockets of one process whose access may end, and the one subscription that tells of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.contrib.auth import SESSION_KEY, get_user_model

from channels import DEFAULT_CHANNEL_LAYER
from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.kit.tasks import TaskScope
from channels.kit.types import Message, Scope, Send
from channels.layers.group_listener import listen_to_group
from channels.layers.registry import get_channel_layer
from channels.security.credential import CREDENTIAL, Credential
from channels.security.hooks import call_hook
from channels.server.loops import call_on

logger = logging.getLogger("django.channels.access")

#: The group in which each process that has such sockets has one channel.
GROUP: Final = "channels.access"
#: For how long a process remembers whose access has ended: a socket may be opening, with a user
#: that was looked up before.
REMEMBERED_SECONDS: Final = 30.0
#: The most that it remembers.
MOST_REMEMBERED: Final = 10_000
_KINDS: Final = ("ended", "recheck")
#: How long a socket that opens waits for the subscription.
_PATIENCE_SECONDS: Final = 1.0


def digest_of(session_key: str) -> str:
    """What a session is known by in messages: its key would let a reader of the broker in."""
    return hashlib.sha256(session_key.encode()).hexdigest()


def user_key_of(user: Any) -> str:
    """A user's primary key as text."""
    return str(getattr(user, "pk", user))


class Entry:
    """One socket of a user who is logged in."""

    def __init__(
        self, scope: Scope, send: Send, code: int, may_stay: Callable[[Scope], Any] | None
    ) -> None:
        # A copy: the consumer's own view of its user and session is its own business.
        self.scope = dict(scope)
        self._send = send
        self._code = code
        self._may_stay = may_stay
        self.is_ended = False
        #: The next check by time, and the end of a token.
        self.timers: dict[str, asyncio.TimerHandle] = {}
        user, session = scope["user"], scope.get("session")
        self.user = user_key_of(user)
        self._hash = hash_of(user)
        #: In the place of a session, which may be there as well, and another user's.
        self._credential: Credential | None = scope.get(CREDENTIAL)
        if self._credential is not None:
            self.session, self._has_session = self._credential.session, False
            return
        key = getattr(session, "session_key", None)
        self.session = digest_of(key) if key else ""
        self._has_session = bool(key and session and SESSION_KEY in session)

    @property
    def seconds_left(self) -> float | None:
        """How long its token still holds; None if it does not expire."""
        expires_at = self._credential.expires_at if self._credential is not None else None
        return None if expires_at is None else expires_at - time.time()

    async def may_go_on(self) -> bool:
        """Look at session, token and user as they are by now, and ask the site's hook."""
        if self._has_session:
            user = await get_user(self.scope)
        else:
            user = await self._look_again()
        if user is None or not user.is_authenticated or user_key_of(user) != self.user:
            return False
        if self._may_stay is None:
            return True
        return bool(await call_hook(self._may_stay, {**self.scope, "user": user}))

    async def _look_again(self) -> Any:
        """The user of a connection without a session, as it is by now; None if it is out."""
        if self._credential is not None and self._credential.look_again is not None:
            found = await self._credential.look_again()
            user = found.user if found is not None else None
        else:
            user = await database_sync_to_async(self._load)()
        # Another password: whoever had the old one is out.
        return user if user is not None and hash_of(user) == self._hash else None

    def _load(self) -> Any:
        user = get_user_model()._default_manager.filter(pk=self.user).first()
        # Not in the query: in some user models it is no field.
        return user if user is not None and user.is_active else None

    async def end(self) -> None:
        """Close the socket; its consumer hears of it as of any other close."""
        self.is_ended = True
        # It may be closed already, or be closing.
        with suppress(Exception):
            await self._send({"type": "websocket.close", "code": self._code})


def hash_of(user: Any) -> str:
    """What changes with a user's password; "" for a user model without one."""
    hashed: str = user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""
    return hashed


class Register:
    """The entries of one event loop, by user and by session; belongs to that loop.

    Close order: entries leave with their sockets, its tasks end with the loop.
    """

    #: Loop -> its register, which does not hold it.
    all: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Register]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._tasks = TaskScope("access that ends")
        self._by_user: dict[str, set[Entry]] = {}
        self._by_session: dict[str, set[Entry]] = {}
        #: (what, key) -> when it was told.
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        #: To be checked, in this order.
        self._due: dict[Entry, None] = {}
        self._has_due = asyncio.Event()
        self._listening: asyncio.Task[Any] | None = None
        self._is_subscribed = asyncio.Event()

    @classmethod
    def of_running_loop(cls) -> Register:
        """The register of the loop that runs."""
        loop = asyncio.get_running_loop()
        register = cls.all.get(loop)
        if register is None:
            register = cls.all[loop] = cls()
        return register

    @asynccontextmanager
    async def looking_after(
        self, entry: Entry, recheck_seconds: float | None
    ) -> AsyncIterator[bool]:
        """Have an entry for as long as the context; gives whether it may enter at all."""
        self._start()
        self._by_user.setdefault(entry.user, set()).add(entry)
        self._by_session.setdefault(entry.session, set()).add(entry)
        if recheck_seconds is not None:
            self._check_later(entry, recheck_seconds)
        if entry.seconds_left is not None:
            loop = asyncio.get_running_loop()
            entry.timers["expiry"] = loop.call_later(entry.seconds_left, self._end, entry)
        try:
            yield await self._may_enter(entry)
        finally:
            for timer in entry.timers.values():
                timer.cancel()
            _remove(self._by_user, entry.user, entry)
            _remove(self._by_session, entry.session, entry)

    async def _may_enter(self, entry: Entry) -> bool:
        """Whether nothing that was told since its user was looked up has ended it."""
        is_first = not self._is_subscribed.is_set()
        if is_first:
            # What was told before this process listened has not been heard.
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._is_subscribed.wait()
        self._forget_old()
        if ("ended", f"session {entry.session}") in self._told:
            return False
        if is_first or any((what, f"user {entry.user}") in self._told for what in _KINDS):
            return await entry.may_go_on()
        return not entry.is_ended

    def _check_later(self, entry: Entry, seconds: float) -> None:
        """Have an entry checked again and again, at moments that are spread."""

        def check() -> None:
            self._check(entry)
            self._check_later(entry, seconds)

        loop = asyncio.get_running_loop()
        entry.timers["check"] = loop.call_later(seconds * random.uniform(0.5, 1.0), check)

    def _check(self, entry: Entry) -> None:
        self._due[entry] = None
        self._has_due.set()

    # What is told.

    def _start(self) -> None:
        if self._listening is None:
            self._listening = self._tasks.spawn(self._listen(), name="subscription")
            self._tasks.spawn(self._check_for_ever(), name="checks")

    async def _listen(self) -> None:
        layer = get_channel_layer(DEFAULT_CHANNEL_LAYER)
        if layer is None:
            self._is_subscribed.set()
            return
        if hasattr(layer, "add_gap_listener"):
            loop = asyncio.get_running_loop()

            def on_gap(groups: Sequence[str] | None) -> None:
                if groups is None or GROUP in groups:
                    call_on(loop, self._check_all)

            layer.add_gap_listener(on_gap)

        async def take(message: Message) -> None:
            self.take(message)

        def note(error: Exception) -> None:
            logger.error("Cannot hear of access that ends; trying again.", exc_info=error)

        await listen_to_group(layer, GROUP, take, note, self._is_subscribed.set)

    def _check_all(self) -> None:
        for entries in self._by_user.values():
            for entry in entries:
                self._check(entry)

    def take(self, message: Message) -> None:
        """Do what a message says; on the loop."""
        what = str(message.get("type", "")).removeprefix("access.")
        for table, name in ((self._by_user, "user"), (self._by_session, "session")):
            key = message.get(name)
            if what not in _KINDS or not isinstance(key, str):
                continue
            self._remember((what, f"{name} {key}"))
            for entry in [*table.get(key, ())]:
                if what == "ended":
                    self._end(entry)
                else:
                    self._check(entry)

    def _remember(self, told: tuple[str, str]) -> None:
        self._told[told] = time.monotonic()
        self._told.move_to_end(told)
        while len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - REMEMBERED_SECONDS
        while self._told and next(iter(self._told.values())) < oldest:
            self._told.popitem(last=False)

    # Checks, one after another: a database has better to do.

    async def _check_for_ever(self) -> None:
        while True:
            await self._has_due.wait()
            if not self._due:
                self._has_due.clear()
                continue
            entry = next(iter(self._due))
            del self._due[entry]
            if entry.is_ended or entry not in self._by_user.get(entry.user, ()):
                continue
            try:
                goes_on = await entry.may_go_on()
            except Exception:
                logger.exception("A socket's access could not be checked; it stays.")
            else:
                if not goes_on:
                    self._end(entry)

    def _end(self, entry: Entry) -> None:
        if not entry.is_ended:
            entry.is_ended = True
            logger.info("Access has ended: a socket of user %s is closed.", entry.user)
            self._tasks.spawn(entry.end(), name="close")


def _remove(table: dict[str, set[Entry]], key: str, entry: Entry) -> None:
    entries = table[key]
    entries.discard(entry)
    if not entries:
        del table[key]


def tell_registers(message: Message) -> None:
    """Tell this process alone: where there is no channel layer there is no other."""
    for loop, register in [*Register.all.items()]:
        call_on(loop, partial(register.take, message))
