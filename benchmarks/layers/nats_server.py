"""NATS with JetStream, behind a wire that can be cut where a case cuts it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.layers.proxied import ProxiedBroker
from benchmarks.layers.server import NotInstalled, Server


class Nats(ProxiedBroker):
    """nats-server."""

    question = b""
    answer = b"INFO "

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nats-server")
        if program is None:
            raise NotInstalled("nats-server")
        super().__init__()
        settings = folder / "nats.conf"
        settings.write_text(
            f"host: 127.0.0.1, port: {self._own_port}, max_payload: 8MB\n"
            f'jetstream {{ store_dir: "{folder}/store" }}\n'
        )
        self._server = Server([program, "-c", str(settings)], folder)

    @property
    def config(self) -> dict[str, Any]:
        return {"servers": [f"nats://127.0.0.1:{self.client_port}"]}
