"""RabbitMQ with a port mapper of its own, behind a wire that can be cut where a case does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.layers.proxied import ProxiedBroker
from benchmarks.layers.server import NotInstalled, Server, free_port


class RabbitMQ(ProxiedBroker):
    """rabbitmq-server without plugins; it takes seconds to start."""

    question = b"AMQP\x00\x00\x09\x01"
    answer = b"\x01\x00\x00"

    def __init__(self, folder: Path) -> None:
        program = shutil.which(
            "rabbitmq-server", path=f"/usr/lib/rabbitmq/bin:{os.environ['PATH']}"
        )
        if program is None:
            raise NotInstalled("rabbitmq-server")
        super().__init__()
        (folder / "enabled_plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text("loopback_users = none\n")
        # The mapper is started here, where a signal to all reaches it, not as a daemon.
        self._server = Server(
            ["sh", "-c", 'epmd & exec "$0"', program], folder, environment(folder, self._own_port)
        )

    @property
    def config(self) -> dict[str, Any]:
        return {"url": f"amqp://guest:guest@127.0.0.1:{self.client_port}/"}


def environment(folder: Path, port: int) -> dict[str, str]:
    """All of it below the folder, on ports that are free."""
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"bench{port}@127.0.0.1",
        "RABBITMQ_USE_LONGNAME": "true",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
