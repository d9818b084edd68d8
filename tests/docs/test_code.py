"""What the documentation shows as code is code, and names what is there."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings
from django.urls import path, re_path

from channels.generic.http import AsyncHttpConsumer
from channels.layers import get_channel_layer
from channels.routing import URLRouter
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
