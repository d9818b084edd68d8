"""NATS with JetStream, behind a wire that can be cut where a case cuts it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

from benchmarks.layers.proxy import Proxy
from benchmarks.layers.server import Broker, NotInstalled, Server, free_port


class Nats(Broker):
    """nats-server."""

    unfit = frozenset({"roundtrip"})

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nats-server")
        if program is None:
            raise NotInstalled("nats-server")
        self._own_port = free_port()
        self._proxy: Proxy | None = None
        settings = folder / "nats.conf"
        settings.write_text(
            f"host: 127.0.0.1, port: {self._own_port}, max_payload: 8MB\n"
            f'jetstream {{ store_dir: "{folder}/store" }}\n'
        )
        self._server = Server([program, "-c", str(settings)], folder)

    @property
    def config(self) -> dict[str, Any]:
        return {"servers": [f"nats://127.0.0.1:{self._front_port}"]}

    def start(self) -> None:
        self._server.start(self._answers)

    def allow_kills(self) -> None:
        self._proxy = Proxy(self._own_port)

    def kill_connections(self) -> None:
        assert self._proxy is not None, "it has been asked for"
        self._proxy.cut()

    def close(self) -> None:
        super().close()
        if self._proxy is not None:
            self._proxy.close()

    @property
    def _front_port(self) -> int:
        return self._own_port if self._proxy is None else self._proxy.port

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._own_port), 1) as connection:
            return connection.recv(5) == b"INFO "
