"""What the documentation shows as code is code, and names what is there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.test import AsyncClient, override_settings
from django.urls import path, re_path

from channels.exceptions import InvalidChannelLayerError
from channels.generic.http import AsyncHttpConsumer
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.server.probes import readiness
from channels.testing import HttpCommunicator
from tests.docs.test_links import PAGES
from tests.docs.tutorial import ROOT

WRITTEN = [page for page in PAGES if page.parent.name != "reference"]
PYTHON = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)


def python_blocks(page: Path) -> list[str]:
    return [found["code"] for found in PYTHON.finditer(page.read_text())]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_compile_and_import_what_there_is(page: Path) -> None:
    for block in python_blocks(page):
        # "await" at the top, as in a shell, is meant to be read inside a coroutine.
        compile(block, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            module = node.module or ""
            if module.partition(".")[0] in {"channels", "django", "asgiref"}:
                exec(ast.unparse(node), {})


#: A block, and what stands in a mark before it: the test that runs it in a project, or SERVES.
MARKED = re.compile(
    r"(?:^<!-- not run here: (?P<why>[^\n]+) -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S
)
SERVES = "it serves until the process ends"
#: test_tutorial.py builds a project of these pages, file by file, and runs it.
RUN = [page for page in WRITTEN if page.parent.name != "tutorial"]


def of_the_reader(layer: Any, name: str, user: Any) -> dict[str, Any]:
    """What stands for the reader's own project in blocks."""

    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    consumer = SimpleNamespace(as_asgi=lambda: application)
    scope = {"type": "websocket", "session": SessionStore(), "user": user}
    return {
        "__name__": "shown",
        "api_urlpatterns": [],
        "application": application,
        "channel_layer": layer,
        "deliver": lambda message: None,
        "LogConsumer": consumer,
        "order": SimpleNamespace(pk=1, save=lambda: None),
        "Order": type("Order", (), {}),
        "Orders": consumer,
        "NextOrder": consumer,
        "path": "/ws/",
        "patterns": [],
        "photo": SimpleNamespace(pk=1),
        "RoomConsumer": consumer,
        "self": SimpleNamespace(
            channel_layer=layer, channel_name=name, client=AsyncClient(), scope=scope
        ),
        "ThumbnailConsumer": consumer,
        "urlpatterns": [],
        "user": user,
        "user_of_token": lambda token, scope: None,
        "websocket_urlpatterns": [],
    }


def blocks(*, marked: bool) -> Iterator[Any]:
    """The blocks that are run here, or those with a mark."""
    for page in RUN:
        text = page.read_text()
        for found in MARKED.finditer(text):
            if (found["why"] is not None) == marked:
                line = text.count("\n", 0, found.start()) + 1
                values = (found["why"], found["code"]) if marked else (found["code"],)
                yield pytest.param(*values, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.fixture
def user(transactional_db: None) -> Any:
    return get_user_model().objects.create(username="mara")


@pytest.mark.parametrize("code", [*blocks(marked=False)])
async def test_a_python_block_runs(code: str, monkeypatch: pytest.MonkeyPatch, user: Any) -> None:
    """By itself, with its own imports: nothing of the block before it is there."""
    await try_out(code, monkeypatch, user)


@pytest.mark.parametrize(("why", "code"), [*blocks(marked=True)])
async def test_a_block_that_is_not_run_here_is_run_elsewhere(
    why: str, code: str, monkeypatch: pytest.MonkeyPatch, user: Any
) -> None:
    """The mark names a test, and is needed: the block would fail here."""
    if why == SERVES:
        return
    assert (ROOT / why).exists()
    assert why.startswith("tests/")
    with pytest.raises((ImportError, InvalidChannelLayerError)):
        await try_out(code, monkeypatch, user)


async def try_out(code: str, monkeypatch: pytest.MonkeyPatch, user: Any) -> None:
    # A block of synchronous code stands for code in a thread.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    monkeypatch.setenv("LAYER_KEY", "k" * 32)
    # What a block requires of the process is no condition of the next tests' servers.
    monkeypatch.setattr(readiness, "_conditions", [])
    backend = "channels.layers.InMemoryChannelLayer"
    configs = {"default": {"BACKEND": backend, "CONFIG": {"delivery": {"mail.*": {}}}}}
    with override_settings(CHANNEL_LAYERS=configs):
        layer = get_channel_layer()
        assert layer is not None
        await layer.send("mail.outgoing", {"type": "mail"})
        await run(code, of_the_reader(layer, await layer.new_channel(), user))
        await layer.flush()


async def run(code: str, given: dict[str, Any]) -> None:
    """Run a block; one that awaits at its top, inside a coroutine, as in a shell."""
    result = eval(compile(code, "shown", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), given)
    if inspect.isawaitable(result):
        await asyncio.wait_for(result, 10)


def shown(name: str, **given: Any) -> type[AsyncHttpConsumer]:
    """The consumer of this name on the page about consumers, alive."""
    page = ROOT / "docs" / "topics" / "consumers.md"
    (block,) = (block for block in python_blocks(page) if f"class {name}(" in block)
    names: dict[str, Any] = {"AsyncHttpConsumer": AsyncHttpConsumer, **given}
    exec(block, names)
    found: type[AsyncHttpConsumer] = names[name]
    return found


@pytest.fixture
def layer() -> Iterator[Any]:
    configs = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=configs):
        yield get_channel_layer()


def ask(application: Any, *headers: tuple[bytes, bytes]) -> HttpCommunicator:
    return HttpCommunicator(application, "GET", "/orders/", headers=list(headers))


async def test_the_stream_goes_on_after_what_was_seen(layer: Any) -> None:
    async def orders_after(last: str) -> AsyncIterator[Any]:
        yield SimpleNamespace(pk=int(last) + 1, number="1042")

    client = ask(shown("Orders", orders_after=orders_after).as_asgi(), (b"last-event-id", b"41"))
    await client.send_input({"type": "http.request", "body": b"", "more_body": False})
    assert (await client.receive_output())["status"] == 200
    await client.receive_output()
    missed = await client.receive_output()
    assert missed["body"] == b'id: 42\ndata: {"number": "1042"}\n\n'
    await layer.group_send("orders", {"type": "order.placed", "number": "1043", "id": "43"})
    assert (await client.receive_output())["body"].startswith(b"id: 43\n")
    await client.send_input({"type": "http.disconnect"})
    await client.wait()


async def test_the_response_that_comes_later(layer: Any) -> None:
    later: Any = shown("NextOrder").as_asgi()
    past: Any = refuse
    client = ask(URLRouter([path("orders/", later), re_path(r"", past)]))
    await client.send_input({"type": "http.request", "body": b"", "more_body": False})
    assert await client.receive_nothing()
    await layer.group_send("orders", {"type": "order.placed", "number": "1042"})
    assert (await client.receive_output())["status"] == 200
    assert (await client.receive_output())["body"] == b"1042"
    await client.wait()


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the request went past its route")
