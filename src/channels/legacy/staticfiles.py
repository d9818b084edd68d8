"""Static files in development, for requests that come as messages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from django.contrib.staticfiles.handlers import StaticFilesHandlerMixin

from channels.legacy.handler import AsgiHandler, ViewConsumer


class StaticFilesHandler(StaticFilesHandlerMixin, AsgiHandler):
    """Serves what lies below STATIC_URL with Django's finders, and everything else by its views."""

    def __init__(self) -> None:
        self.base_url = urlparse(self.get_base_url())
        super().__init__()

    def load_middleware(self, is_async: bool = False) -> None:
        """The views' own: unlike Django's handlers this one wraps no application."""
        AsgiHandler.load_middleware(self, is_async)

    def get_response(self, request: Any) -> Any:
        """The file, or what the view answers."""
        if self._should_handle(request.path):
            response: Any = super().get_response(request)
            response._resource_closers.append(request.close)
            return response
        return AsgiHandler.get_response(self, request)


class StaticFilesConsumer(ViewConsumer):
    """A consumer for `http.request` that serves static files too."""

    handler_class = StaticFilesHandler
