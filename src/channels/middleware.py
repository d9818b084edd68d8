"""Middleware: an application around an application, and the forms that one may come in.

One shape is called everywhere here, ASGI 3's `app(scope, receive, send)`.  Projects bring others:
consumer classes without `as_asgi()`, and the two-step form of ASGI 2 and Channels 2, where
`app(scope)` gives an instance that is then called with `(receive, send)`.  `single_callable` turns
each into the one shape.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Final

from channels.kit.types import Application, Receive, Scope, Send

#: The attribute under which a middleware keeps what it wraps, by convention since Channels 2.
INNER: Final = "inner"
#: Stands for `receive` and `send` in the first of two steps.  Not None: unit tests of middleware
#: call it with (scope, None, None).
NEXT_STEP: Final[Any] = object()


class BaseMiddleware:
    """Calls the inner application with a copy of the scope; override `__call__` to do more.

    A subclass in the manner of Channels 2 and 3 that leaves `__call__` alone may define
    `populate_scope(scope)` and `async resolve_scope(scope)`, which are called with that copy.
    """

    def __init__(self, inner: Any) -> None:
        # A two-step subclass calls self.inner(scope), every other self.inner(scope, receive, send).
        self.inner: Any = two_way(inner) if is_double_callable(self) else single_callable(inner)

    async def __call__(
        self, scope: Scope, receive: Receive = NEXT_STEP, send: Send = NEXT_STEP
    ) -> Any:
        if send is NEXT_STEP:
            # super().__call__(scope) of a two-step subclass.
            return partial(BaseMiddleware.__call__, self, scope)
        scope = dict(scope)
        # A subclass with its own __call__ runs its hooks itself.
        if type(self).__call__ is BaseMiddleware.__call__:
            if (populate := getattr(self, "populate_scope", None)) is not None:
                populate(scope)
            if (resolve := getattr(self, "resolve_scope", None)) is not None:
                await resolve(scope)
        return await self.inner(scope, receive, send)


class TwoWay:
    """An application that may be called in one step or in two."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive = NEXT_STEP, send: Send = NEXT_STEP) -> Any:
        if send is NEXT_STEP:
            return partial(self.application, scope)
        return self.application(scope, receive, send)

    def __getattr__(self, name: str) -> Any:
        if name == "application":
            raise AttributeError(name)
        return getattr(self.application, name)


def two_way(application: Any) -> TwoWay:
    """The application in a form that two-step middleware can call too."""
    if isinstance(application, TwoWay):
        return application
    return TwoWay(single_callable(application))


def single_callable(application: Any) -> Application:
    """The application as `app(scope, receive, send)`; one in that form is returned as it is."""
    if inspect.isclass(application) and hasattr(application, "as_asgi"):
        consumer: Application = application.as_asgi()
        return consumer
    if not is_double_callable(application):
        single: Application = application
        return single
    _open_inner(application)

    async def two_steps(scope: Scope, receive: Receive, send: Send) -> Any:
        instance = application(scope)
        if inspect.isawaitable(instance):
            instance = await instance
        return await instance(receive, send)

    return two_steps


def is_double_callable(application: Any) -> bool:
    """True if the application is called in two steps: with a scope, then with receive and send."""
    if getattr(application, "_asgi_single_callable", False):
        return False
    if getattr(application, "_asgi_double_callable", False):
        return True
    try:
        signature = inspect.signature(application)
    except (TypeError, ValueError):
        return False
    return not _takes(signature, 3) and _takes(signature, 1)


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _open_inner(middleware: Any) -> None:
    """Let a two-step middleware call `self.inner(scope)` although its inner takes one step.

    Middleware written for Channels 2 builds on nothing of ours, so its attribute is the only place
    where the two forms can meet.
    """
    inner = getattr(middleware, "__dict__", {}).get(INNER)
    if inner is None or inspect.isclass(middleware) or not callable(inner):
        return
    if is_double_callable(inner):
        _open_inner(inner)
    else:
        setattr(middleware, INNER, two_way(inner))
