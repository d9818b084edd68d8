"""A server in a child process and an application that records: for tests over real sockets."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from channels.kit.types import Application, Message, Receive, Scope, Send
from channels.testing.process import GRACE_SECONDS, RunsAndStops, ServerProcess
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server


class DaphneProcess(ServerProcess):
    """A child process that runs `daphne.server.Server`; `kwargs` are that class's."""

    def make_server(self, application: Application, ready: Callable[[int], None]) -> RunsAndStops:
        server = _TestServer(
            application=application,
            endpoints=build_endpoint_description_strings(
                host=self.bound_host, port=self.wanted_port
            ),
            ready_callable=lambda: ready(int(server.listening_addresses[0][1] or 0)),
            **self.kwargs,
        )
        return server


class _TestServer(Server):
    shutdown_timeout = GRACE_SECONDS


class BaseDaphneTestingInstance:
    """Serves an application on a free port of 127.0.0.1 while the `with` block runs."""

    startup_timeout = 2

    def __init__(
        self,
        xff: bool = False,
        http_timeout: float | None = None,
        request_buffer_size: int | None = None,
        websocket_max_message_size: int | None = None,
        websocket_max_frame_size: int | None = None,
        *,
        application: Application,
    ) -> None:
        self.application = application
        self.host = "127.0.0.1"
        self.port = 0
        given: dict[str, Any] = {
            "http_timeout": http_timeout,
            "request_buffer_size": request_buffer_size,
            "websocket_max_message_size": websocket_max_message_size,
            "websocket_max_frame_size": websocket_max_frame_size,
        }
        if xff:
            given |= {
                "proxy_forwarded_address_header": "X-Forwarded-For",
                "proxy_forwarded_port_header": "X-Forwarded-Port",
                "proxy_forwarded_proto_header": "X-Forwarded-Proto",
            }
        self.kwargs = {name: value for name, value in given.items() if value is not None}

    def get_application(self) -> Application:
        """Called in the child."""
        return self.application

    def process_setup(self) -> None:
        """Called in the child before it serves."""

    def process_teardown(self) -> None:
        """Called in the child after it has served."""

    def __enter__(self) -> Self:
        self.process = DaphneProcess(
            host=self.host,
            get_application=self.get_application,
            kwargs=self.kwargs,
            setup=self.process_setup,
            teardown=self.process_teardown,
        )
        self.process.start()
        self.port = self.process.wait_until_ready(self.startup_timeout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.stop()


class DaphneTestingInstance(BaseDaphneTestingInstance):
    """Serves a `TestApplication`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lock = multiprocessing.Lock()
        super().__init__(*args, **kwargs, application=TestApplication(lock=self.lock))

    def __enter__(self) -> Self:
        TestApplication.clear_storage()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        TestApplication.clear_storage()

    def get_received(self) -> tuple[Scope, list[Message]]:
        """The last connection's scope, and what it has received.

        Raises:
            ValueError: If nothing has arrived.
            Exception: What the application raised.
        """
        with self.lock:
            inner = TestApplication.load_result()
        return inner["scope"], inner["messages"]

    def add_send_messages(self, messages: Iterable[Message]) -> None:
        """Let the application send `messages` after the next message that it receives."""
        TestApplication.save_setup(list(messages))


class TestApplication:
    """Notes what it receives, and after each message sends what it was told to.

    Test and application meet in two files, since they are two processes.
    """

    __test__ = False  # not for pytest

    setup_storage = Path(tempfile.gettempdir()) / "setup.testio"
    result_storage = Path(tempfile.gettempdir()) / "result.testio"

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self.lock = lock or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        messages: list[Message] = []
        try:
            while True:
                messages.append(await receive())
                with self.lock:
                    self.save_result(scope, messages)
                for message in self.load_setup()["response_messages"]:
                    await send(message)
                self.delete_setup()
                if messages[-1]["type"].endswith(".disconnect"):
                    return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.save_exception(error)
            raise

    @classmethod
    def save_setup(cls, response_messages: list[Message]) -> None:
        """Store what the application shall send."""
        _write(cls.setup_storage, {"response_messages": response_messages})

    @classmethod
    def load_setup(cls) -> dict[str, Any]:
        """What was stored; nothing to send if nothing was."""
        if not cls.setup_storage.exists():
            return {"response_messages": []}
        stored: dict[str, Any] = _read(cls.setup_storage)
        return stored

    @classmethod
    def save_result(cls, scope: Scope, messages: list[Message]) -> None:
        """Store what the application has received."""
        _write(cls.result_storage, {"scope": _without_objects(scope), "messages": messages})

    @classmethod
    def save_exception(cls, exception: BaseException) -> None:
        """Store what the application has raised."""
        text = "".join(traceback.format_exception(exception))
        _write(cls.result_storage, {"exception": exception, "exception_tb": text})

    @classmethod
    def load_result(cls) -> dict[str, Any]:
        """What was stored.

        Raises:
            ValueError: If nothing was.
            Exception: What the application raised.
        """
        if not cls.result_storage.exists():
            raise ValueError("The application has received nothing so far.")
        stored: dict[str, Any] = _read(cls.result_storage)
        if "exception" in stored:
            raise stored["exception"]
        return stored

    @classmethod
    def clear_storage(cls) -> None:
        """Forget both."""
        cls.delete_setup()
        cls.delete_result()

    @classmethod
    def delete_setup(cls) -> None:
        """Forget what the application shall send."""
        cls.setup_storage.unlink(missing_ok=True)

    @classmethod
    def delete_result(cls) -> None:
        """Forget what it has received or raised."""
        cls.result_storage.unlink(missing_ok=True)


def _reinstall_reactor() -> None:
    """There is no reactor to install again."""


def _write(path: Path, stored: dict[str, Any]) -> None:
    # In one step: the other process may read at any time.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        pickle.dump(stored, file)
    Path(file.name).replace(path)


def _read(path: Path) -> dict[str, Any]:
    """What `_write` has stored there.

    Raises:
        PermissionError: If another user has put the file there, who could run code here by it.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user: remove it.")
        stored: dict[str, Any] = pickle.load(file)
        return stored


def _without_objects(scope: Scope) -> Scope:
    return {name: value for name, value in scope.items() if name not in {"extensions", "state"}}
