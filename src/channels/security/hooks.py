"""Functions of the site that decide about access: checked at start, called where they may block."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async


def check_hook(name: str, hook: Any, expected: str) -> None:
    """Check a hook when the application is made, not when the first client connects.

    Args:
        name: Of the parameter, for the error.
        expected: How the hook is called: "(token, scope)".

    Raises:
        TypeError: If it cannot be called like that.
    """
    if not callable(hook):
        raise TypeError(f"{name}={hook!r}: expected a function that is called with {expected}.")
    try:
        inspect.signature(hook).bind(*expected.split(","))
    except TypeError as error:
        named = getattr(hook, "__qualname__", repr(hook))
        raise TypeError(f"{name}={named} cannot be called with {expected}: {error}.") from None
    except ValueError:
        # Functions written in C tell no signature.
        return


async def call_hook(hook: Callable[..., Any], *arguments: Any) -> Any:
    """Await a coroutine function; run any other in a thread, where it may use the database."""
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
        getattr(hook, "__call__", None)  # noqa: B004 - an instance with an async __call__
    ):
        return await hook(*arguments)
    result = await database_sync_to_async(hook)(*arguments)
    # A partial or a lambda of a coroutine function.
    return await result if inspect.isawaitable(result) else result
