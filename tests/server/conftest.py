from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from channels.kit.limits import Limits, Timeouts
from channels.kit.types import Application
from channels.server import AccessRecord, Endpoint, Server, ServerOptions, parse_endpoint
from channels.server.endpoints import Tls
from tests.server.client import Client, connect


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of the server runs on both loops: their transports differ in small ways."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Running:
    """A started server, its clients, and what it has recorded."""

    def __init__(self, server: Server, records: list[AccessRecord]) -> None:
        self.server = server
        self.records = records
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        client = await connect(self.server.addresses[0])
        self.clients.append(client)
        return client


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers; stop them, and see that they leave nothing behind.

    Keywords are those of `Limits`, `Timeouts` and `ServerOptions`; lifespan is off by default.
    """
    sockets = open_sockets()
    running: list[Running] = []

    async def start(
        application: Application,
        endpoint: Endpoint | str = r"tcp:port=0:interface=127.0.0.1",
        **options: Any,
    ) -> Running:
        if isinstance(endpoint, str):
            endpoint = parse_endpoint(endpoint)
        records: list[AccessRecord] = []
        server = Server(application, [endpoint], as_options(options), records.append)
        await server.start()
        running.append(Running(server, records))
        return running[-1]

    yield start
    for one in running:
        for client in one.clients:
            client.reset()
        await one.server.stop(1)
        assert one.server.connection_count == 0
    await settled(lambda: len(asyncio.all_tasks()) == 1)
    await settled(lambda: open_sockets() <= sockets)


def as_options(options: dict[str, Any]) -> ServerOptions:
    for table, name in ((Limits, "limits"), (Timeouts, "timeouts")):
        own = {key: options.pop(key) for key in [*options] if key in table.__dataclass_fields__}
        options[name] = table(**own)
    return ServerOptions(**{"lifespan": "off", **options})


def open_sockets() -> int:
    folder = Path("/proc/self/fd")
    count = 0
    for entry in os.listdir(folder):
        with contextlib.suppress(OSError):
            count += os.readlink(folder / entry).startswith("socket:")
    return count


async def settled(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Let the loop turn until the condition holds; fail if it does not come to hold."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions that no event announces
            await asyncio.sleep(0.001)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost that signs itself."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Any) -> Tls:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    key_path, certificate_path = folder / "key.pem", folder / "certificate.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Tls(str(key_path), str(certificate_path))
