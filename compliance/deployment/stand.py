"""The page's deployment, set up in a temporary folder: site, processes, proxy."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compliance.deployment.page import Places, block, processes
from compliance.deployment.proxy import Proxy, make_certificate, program
from compliance.deployment.unit import Service

SETTINGS = """
SECRET_KEY = "of no secrecy, for a site that lives a minute"
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = ["channels"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """A running deployment."""

    services: list[Service]
    proxy: Proxy
    port: int
    #: Trusts the page's certificate for example.com.
    tls: ssl.SSLContext
    folder: Path

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection to the proxy, as a client of example.com makes it."""
        raw = socket.create_connection(("127.0.0.1", self.port), 10)
        return self.tls.wrap_socket(raw, server_hostname="example.com")


def write_site(folder: Path, modules: dict[str, str]) -> None:
    """The project `mysite`: these modules, and settings that include the page's."""
    package = folder / "srv" / "mysite"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    settings = SETTINGS + block("python", "ALLOWED_HOSTS")
    for name, text in {"settings": settings, **modules}.items():
        (package / f"{name}.py").write_text(text)


@contextlib.contextmanager
def stand(name: str, modules: dict[str, str]) -> Iterator[Stand]:
    """Set up the page's deployment behind this proxy, and take it down again.

    Raises:
        PageError: If the page lacks what is read from it.
        UnitFailed: If a process does not start.
        ProxyFailed: If the proxy does not start.
    """
    # Short: a Unix socket's path has at most 107 octets.
    folder = Path(tempfile.mkdtemp(prefix="page-"))
    services: list[Service] = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = Places(folder, port, Path(sys.executable).with_name("channels"))
    proxy = None
    try:
        write_site(folder, modules)
        certificate = make_certificate(folder / "ssl")
        text = places.put(block("ini", "mysite@.service"), "program", "site", "run")
        services = [Service(text, number, folder) for number in processes()]
        for service in services:
            service.start()
        proxy = Proxy(name, places)
        proxy.start()
        tls = ssl.create_default_context(cafile=str(certificate))
        yield Stand(services, proxy, port, tls, folder)
    finally:
        if proxy is not None:
            proxy.stop()
        for service in services:
            service.kill()
        shutil.rmtree(folder, ignore_errors=True)


def missing(names: tuple[str, ...]) -> list[str]:
    """The proxies that are not installed."""
    return [name for name in names if program(name) is None]
