"""Other routes than the configured ones, for one test or one class of tests."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from channels import DEFAULT_CHANNEL_LAYER
from channels.legacy.asgi import channel_layers
from channels.legacy.routing import Router, include


class apply_routes:  # noqa: N801 - of the API
    """A decorator of functions and test cases, and a context manager: route messages otherwise.

    Args:
        routes: A route, a list of them, or a list of such lists.
        aliases: The layers whose routing is replaced; None for the default one.
    """

    def __init__(self, routes: Any, aliases: Sequence[str] | None = None) -> None:
        self.routes = routes
        self.aliases = [DEFAULT_CHANNEL_LAYER] if aliases is None else list(aliases)
        #: What was replaced, once for each time that it is entered: layer, routing, router.
        self._replaced: list[list[tuple[Any, Any, Any]]] = []

    def enter(self) -> None:
        """Replace the routing; `exit` puts it back."""
        routing = self._routing()
        replaced = []
        for alias in self.aliases:
            layer = channel_layers[alias]
            replaced.append((layer, layer.routing, vars(layer).get("router")))
            layer.routing, layer.router = routing, Router(routing)
        self._replaced.append(replaced)

    def exit(self) -> None:
        """Put the routing back that `enter` has replaced."""
        for layer, routing, router in self._replaced.pop():
            layer.routing = routing
            if router is None:
                # It is made anew from the routing when it is needed.
                del layer.router
            else:
                layer.router = router

    def _routing(self) -> list[Any]:
        if not isinstance(self.routes, list | tuple):
            return [self.routes]
        return [include(each) if isinstance(each, list | tuple) else each for each in self.routes]

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.exit()

    def __call__(self, test: Any) -> Any:
        """A function that runs with these routes, or the class, whose tests do."""
        if isinstance(test, type):
            return self._decorate_class(test)

        @functools.wraps(test)
        def with_routes(*args: Any, **kwargs: Any) -> Any:
            with self:
                return test(*args, **kwargs)

        return with_routes

    def _decorate_class(self, case: Any) -> Any:
        set_up = case.setUp

        @functools.wraps(set_up)
        def set_up_with_routes(test: Any) -> None:
            self.enter()
            test.addCleanup(self.exit)
            set_up(test)

        case.setUp = set_up_with_routes
        return case
