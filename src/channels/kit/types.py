"""The shapes that cross walls: ASGI's callables and messages.

Scopes and messages are open dictionaries by specification (extensions add keys), hence `Any`.
Source: ASGI specification 3.0, "Applications" and "Events".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[Any]]

#: Header fields in the order of the wire, names in lower case.
Headers: TypeAlias = list[tuple[bytes, bytes]]
HeaderPairs: TypeAlias = Iterable[tuple[bytes, bytes]]

#: (host, port); a Unix socket has its path and None.
Address: TypeAlias = tuple[str, int | None]
