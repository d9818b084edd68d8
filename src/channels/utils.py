"""Two functions that packages built on Channels import from here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


def name_that_thing(thing: Any) -> str:
    """The dotted name of a function, method or class; of anything else, that of its class."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        thing = type(thing)
    module = getattr(thing, "__module__", None)
    return f"{module}.{thing.__qualname__}" if module else repr(thing)


async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[Any]]],
    dispatch: Callable[[Any], Awaitable[Any]],
) -> None:
    """Await several sources for ever and dispatch what each gives, one at a time.

    It ends by the first error, of a source or of `dispatch`, or by being cancelled; whatever is
    awaited then is cancelled, and has ended when this returns.  Consumers do not use it: a mailbox
    costs a tenth.
    """
    waiting: list[asyncio.Future[Any]] = []
    try:
        for source in consumer_callables:
            waiting.append(asyncio.ensure_future(source()))
        while True:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for index, future in enumerate(waiting):
                if future.done():
                    # Dispatched before the source is asked again: what it gives to a loop that
                    # ends meanwhile would be lost.
                    await dispatch(future.result())
                    waiting[index] = asyncio.ensure_future(consumer_callables[index]())
    finally:
        for future in waiting:
            future.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for future in waiting:
            # An error of a source that came second has nobody left to hear it.
            if not future.cancelled():
                future.exception()
