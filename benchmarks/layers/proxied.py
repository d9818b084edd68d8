"""What brokers have in common that cannot be told to end their clients' connections."""

from __future__ import annotations

import socket
from typing import ClassVar

from benchmarks.layers.proxy import Proxy
from benchmarks.layers.server import Broker, free_port


class ProxiedBroker(Broker):
    """A broker behind a wire that can be cut, where a case does; a subclass makes `_server`.

    That has to listen at `_own_port`.

    Attributes:
        question: What a client says first; b"": the broker begins.
        answer: What the broker's first words begin with once it is ready.
    """

    unfit = frozenset({"roundtrip"})
    question: ClassVar[bytes]
    answer: ClassVar[bytes]

    def __init__(self) -> None:
        self._own_port = free_port()
        self._proxy: Proxy | None = None

    @property
    def client_port(self) -> int:
        """Where clients connect."""
        return self._own_port if self._proxy is None else self._proxy.port

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

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._own_port), 1) as connection:
            connection.sendall(self.question)
            return connection.recv(len(self.answer)) == self.answer
