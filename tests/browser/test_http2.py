"""A real browser over HTTP/2: a page, and ten WebSockets on the connection that it has already."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from channels.kit.types import Receive, Scope, Send
from channels.server import Server, ServerOptions
from channels.server.endpoints import Endpoint
from tests.server.applications import read_body, respond
from tests.server.conftest import make_certificate

#: One browser at a time: on a busy machine a second one may end as it starts.
pytestmark = pytest.mark.xdist_group("browser")

PAGE = b"""<!doctype html><script>
const echo = number => new Promise((done, failed) => {
  const socket = new WebSocket(`wss://${location.host}/${number}`);
  socket.onopen = () => socket.send(`hello ${number}`);
  socket.onmessage = event => { socket.close(4000); done(event.data); };
  socket.onerror = () => failed(`socket ${number}`);
});
Promise.all([...Array(10).keys()].map(echo))
  .catch(String)
  .then(found => fetch("/found", {method: "POST", body: JSON.stringify(found)}));
</script>"""


class Site:
    """The page, an echo, and what the page has found."""

    def __init__(self) -> None:
        self.versions: list[tuple[str, str]] = []
        self.codes: list[int] = []
        self.found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/favicon.ico":
            self.versions.append((scope["type"], scope["http_version"]))
        if scope["type"] == "http":
            if scope["path"] == "/found":
                self.found.set_result(json.loads(await read_body(receive)))
            await respond(send, PAGE, headers=[(b"content-type", b"text/html")])
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        self.codes.append(event["code"])


@pytest.mark.timeout(120)
async def test_ten_sockets_over_one_connection(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        message = "chromium not found: script/test installs it as root."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    site = Site()
    endpoint = Endpoint("tcp", host="127.0.0.1", tls=make_certificate(tmp_path))
    server = Server(site, [endpoint], ServerOptions(lifespan="off"))
    await server.start()
    process = await asyncio.create_subprocess_exec(
        browser,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"),
        f"https://127.0.0.1:{server.addresses[0][1]}/",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        found = await asyncio.wait_for(site.found, 90)
        assert found == [f"hello {number}" for number in range(10)]
        assert site.versions[0] == ("http", "2")
        assert site.versions.count(("websocket", "2")) == 10
        # A browser may open a spare one.
        assert server.connection_count <= 2
        async with asyncio.timeout(10):
            while len(site.codes) < 10:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)
        assert site.codes == [4000] * 10
    finally:
        process.terminate()
        await process.wait()
        await server.stop(1)
