"""The process that is the hub of `LocalChannelLayer`, and does nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.layers.contenders import ROOT
from benchmarks.layers.member import Gauge
from benchmarks.layers.server import Broker, Server


class Hub(Broker):
    """The first process of the layer; when it is killed, another member takes its place."""

    unfit = frozenset({"kill", "roundtrip"})

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0

    @property
    def config(self) -> dict[str, Any]:
        return {"directory": str(self._folder)}

    def start(self) -> None:
        self._started += 1
        gauge = self._folder / f"host-{self._started}"
        settings: dict[str, Any] = {
            "layer": LAYER,
            "config": self.config,
            "databases": None,
            "role": "host",
            "gauge": str(gauge),
        }
        settings["is_first"] = self._started == 1
        self._server = Server(
            [sys.executable, "-m", "benchmarks.layers.member", json.dumps(settings)],
            self._folder,
            {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        self._server.start(lambda: Gauge(gauge).value > 0)

    def kill_connections(self) -> None:
        raise NotImplementedError("nobody but a hub's own members can end its connections")


LAYER = "channels.layers.LocalChannelLayer"
