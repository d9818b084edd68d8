"""Static files in development, under the names that Channels 2 and 3 gave to Django's handler."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from channels.kit.old_names import old_names
from channels.middleware import single_callable


class StaticFilesHandler(ASGIStaticFilesHandler):
    """Serves what lies below STATIC_URL; every other connection goes to the application.

    Files are looked for with Django's finders: for development, not for production.
    """

    def __init__(self, application: Any) -> None:
        inner: Any = single_callable(application)
        super().__init__(inner)


class StaticFilesWrapper(StaticFilesHandler):
    """The same; the second argument of former versions chose a handler class.

    Args:
        staticfiles_handler: Serves the files in place of this object, if it is given.
    """

    def __init__(self, application: Any, staticfiles_handler: type[Any] | None = None) -> None:
        super().__init__(application)
        self._handler = staticfiles_handler(application) if staticfiles_handler else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        handler = super().__call__ if self._handler is None else self._handler
        return await handler(scope, receive, send)


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "StaticFilesConsumer": "channels.legacy.staticfiles",
    },
)
