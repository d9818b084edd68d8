"""The 146 requirements of RFC 9113 and RFC 7541, in clear; `script/comply B2` asks over TLS too."""

from __future__ import annotations

import pytest
from compliance.http2.case import Case
from compliance.http2.run import CASES, ask

from channels.kit.types import Receive, Scope, Send
from tests.server.applications import respond
from tests.server.conftest import Serve


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        if not event["more_body"] and scope["path"] != "/wait":
            break
    await respond(send, bytes(5000) if scope["path"] == "/long" else b"hello")


def test_none_is_missing() -> None:
    assert len({case.id for case in CASES}) == len(CASES) == 146


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_a_requirement(serve: Serve, case: Case) -> None:
    running = await serve(application, http2=True)
    port = running.server.addresses[0][1]
    assert port is not None
    heard = await ask(case, port)
    assert case.expects.holds(heard), f"{case.title}: {heard}"
