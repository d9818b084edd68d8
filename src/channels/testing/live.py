"""A test case against a live server that speaks HTTP and WebSocket."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase
from django.test.utils import modify_settings
from django.utils.functional import classproperty

from channels.kit.types import Application, Receive, Scope, Send
from channels.middleware import single_callable
from channels.routing import get_default_application
from channels.testing.process import ServerProcess


def __getattr__(name: str) -> Any:
    # Its package stands above this one.
    if name != "DaphneProcess":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("daphne.testing").DaphneProcess


#: A class or function that puts an application behind another.
StaticWrapper = Callable[[Any], Any]


class ChannelsLiveServerTestCase(TransactionTestCase):
    """Serves ASGI_APPLICATION in a process of its own while the tests of the class run.

    The server reads and writes the test database, so that must be one which two processes can
    share: SQLite needs a file, `DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}`.  With
    each test it forgets the rows that Django remembers, content types and sites: the flush after a
    test gives them new keys.
    """

    host = "localhost"
    ProtocolServerProcess: ClassVar[type[ServerProcess]] = ServerProcess
    static_wrapper: ClassVar[Any] = ASGIStaticFilesHandler
    serve_static = True

    _server_process: ClassVar[ServerProcess | None] = None
    _port: ClassVar[int] = 0
    #: How many tests have begun, for the server to see.
    _tests_begun: ClassVar[Any] = None

    @classproperty
    def live_server_url(cls) -> str:  # noqa: N805
        """http://HOST:PORT"""
        return f"http://{cls.host}:{cls._port}"

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805
        """ws://HOST:PORT"""
        return f"ws://{cls.host}:{cls._port}"

    @classmethod
    def setUpClass(cls) -> None:
        for connection in connections.all():
            if cls._is_in_memory_db(connection):
                raise ImproperlyConfigured(
                    f"{cls.__name__} runs the server in a second process, which cannot see the "
                    f"in-memory SQLite database {connection.alias!r}.  Give it a file: "
                    f'DATABASES["{connection.alias}"]["TEST"] = {{"NAME": "test.sqlite3"}}.'
                )
        super().setUpClass()
        changed = modify_settings(ALLOWED_HOSTS={"append": cls.host})
        changed.enable()
        cls.addClassCleanup(changed.disable)
        cls._start_server()

    @classmethod
    def _start_server(cls) -> None:
        names = {it.alias: str(it.settings_dict["NAME"]) for it in connections.all()}
        # A forked child would end the parent's sessions by closing its copies of them.
        connections.close_all()
        cls._tests_begun = multiprocessing.Value("i", 0)
        cls._start(partial(set_up_child, _changed_settings(), names))

    @classmethod
    def _start(cls, setup: Callable[[], object]) -> None:
        """Start the processes that serve; each calls `setup` first."""
        process = cls.ProtocolServerProcess(cls.host, cls._get_application(), setup=setup)
        process.start()
        cls._server_process = process
        cls.addClassCleanup(cls._stop_server)
        cls._port = process.wait_until_ready()

    @classmethod
    def _get_application(cls) -> Callable[[], Application]:
        """What makes the application, in the server's process."""
        return partial(_make_forgetful, cls._static_wrapper(), cls._tests_begun)

    @classmethod
    def _stop_server(cls) -> None:
        process, cls._server_process = cls._server_process, None
        if process is not None:
            process.stop()

    @classmethod
    def _pre_setup(cls) -> None:
        if cls._server_process is not None:
            cls._server_process.raise_error()
            cls._tests_begun.value += 1
        super()._pre_setup()  # type: ignore[misc] # Django's, unknown to its stubs

    @classmethod
    def _static_wrapper(cls) -> StaticWrapper | None:
        wrapper: StaticWrapper = cls.__dict__.get("static_wrapper", cls.static_wrapper)
        installed = apps.is_installed("django.contrib.staticfiles")
        if not cls.serve_static or (wrapper is ASGIStaticFilesHandler and not installed):
            return None
        return wrapper

    @classmethod
    def _is_in_memory_db(cls, connection: BaseDatabaseWrapper) -> bool:
        """True if no other process can see the database."""
        return connection.vendor == "sqlite" and bool(cast("Any", connection).is_in_memory_db())


def make_application(*, static_wrapper: StaticWrapper | None) -> Application:
    """ASGI_APPLICATION, behind a handler for static files if there is one."""
    application = single_callable(get_default_application())
    if static_wrapper is not None:
        application = static_wrapper(application)
    return application


class RememberedRows:
    """Rows that Django remembers in this process, of former tests perhaps.

    Args:
        tests_begun: Its `value` is another number in each test.
    """

    def __init__(self, tests_begun: Any) -> None:
        self._tests_begun = tests_begun
        self._seen = tests_begun.value

    def forget(self) -> None:
        """Forget them, if another test has begun since the last call."""
        if self._seen != self._tests_begun.value:
            self._seen = self._tests_begun.value
            for model in apps.get_models():
                # ContentType's and Site's managers have it, and those that do as they do.
                clear_cache = getattr(model._default_manager, "clear_cache", None)
                if callable(clear_cache):
                    clear_cache()


class Forgetful:
    """An application that forgets remembered rows before the first connection of each test."""

    def __init__(self, application: Application, rows: RememberedRows) -> None:
        self.application = application
        self._rows = rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._rows.forget()
        await self.application(scope, receive, send)


def _make_forgetful(static_wrapper: StaticWrapper | None, tests_begun: Any) -> Application:
    application = make_application(static_wrapper=static_wrapper)
    return Forgetful(application, RememberedRows(tests_begun))


def set_database_connection(names: Mapping[str, str] | None = None) -> None:
    """Point this process at the test databases, by alias; None takes the names in the settings."""
    for alias, options in settings.DATABASES.items():
        test: Any = options.get("TEST") or {}
        name = test.get("NAME") if names is None else names.get(alias)
        if name:
            options["NAME"] = name
    connections.close_all()


def set_up_child(changed: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Make a child see the settings and databases of the test, whether forked or spawned."""
    if not apps.ready:
        django.setup()
    for name, value in changed.items():
        setattr(settings, name, value)
    set_database_connection(names)


def _changed_settings() -> dict[str, Any]:
    # A spawned child reads the settings module anew; what a test has overridden must be told.
    module = os.environ.get(ENVIRONMENT_VARIABLE)
    written = importlib.import_module(module) if module else None
    is_overridden = cast("Any", settings).is_overridden
    changed = {}
    for name in dir(settings):
        if not name.isupper() or name == "DATABASES" or not is_overridden(name):
            continue
        value = getattr(settings, name)
        if hasattr(written, name) and getattr(written, name) == value:
            continue
        try:
            pickle.dumps(value)
        except Exception:
            continue
        changed[name] = value
    return changed
