"""The client's side of a case: `python -m compliance.packages.client CASE PORT`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib import import_module
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

#: For answers that must come, on a busy machine.
PATIENCE_SECONDS = 30.0


class Site:
    """The server of the case, as its clients see it."""

    def __init__(self, port: int) -> None:
        self.port = port

    @contextmanager
    def socket(self, path: str, *subprotocols: str, **headers: str) -> Iterator[Socket]:
        with connect(
            f"ws://127.0.0.1:{self.port}{path}",
            origin=Origin(f"http://127.0.0.1:{self.port}"),
            subprotocols=[Subprotocol(each) for each in subprotocols] or None,
            additional_headers=headers,
            open_timeout=PATIENCE_SECONDS,
        ) as connection:
            yield Socket(connection)

    def request(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text


class Socket:
    """A WebSocket that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, content: Any) -> None:
        self.connection.send(json.dumps(content))

    def hear(self) -> Any:
        return json.loads(self.connection.recv(PATIENCE_SECONDS))

    def ask(self, content: Any) -> Any:
        self.say(content)
        return self.hear()

    def hear_until(self, **wanted: Any) -> Any:
        """The next message that has these items; others before it are passed over."""
        while True:
            heard = self.hear()
            if wanted.items() <= heard.items():
                return heard


def main() -> None:
    case, port = sys.argv[1:]
    os.environ["DJANGO_SETTINGS_MODULE"] = "compliance.packages.site"
    # As in the server's process: what the case connects to signals is needed here too.
    import_module("compliance.packages.asgi")
    import_module(f"compliance.packages.cases.{case}").drive(Site(int(port)))


if __name__ == "__main__":
    main()
