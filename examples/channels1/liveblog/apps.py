from importlib import import_module

from django.apps import AppConfig


class LiveblogConfig(AppConfig):
    name = "liveblog"

    def ready(self):
        """Connect the signal's receiver, whichever process stores an entry."""
        import_module("liveblog.consumers")
