"""Listening sockets: bound, inherited, or passed by systemd.

Close order: a listener stops accepting at once; a Unix socket's file goes with it, unless another
server has put its own in that place meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import ssl
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from channels.exceptions import InvalidOption
from channels.kit.types import Address
from channels.server.endpoints import Endpoint, Tls

#: sd_listen_fds(3): the first descriptor that systemd passes.
_SYSTEMD_FIRST: Final = 3
#: For a peer that does not say goodbye in TLS.
_TLS_GOODBYE_SECONDS: Final = 2.0

Factory = Callable[[], asyncio.BaseProtocol]


class SocketFile:
    """The file of a Unix socket that was bound here."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode = os.stat(path).st_ino

    def remove(self) -> None:
        """Remove it, unless another server has put its own in that place."""
        with suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


class Listener:
    """One endpoint that accepts connections."""

    def __init__(self, server: asyncio.AbstractServer, unix_path: str = "") -> None:
        self._server = server
        self._file = SocketFile(unix_path) if unix_path else None

    @property
    def addresses(self) -> list[Address]:
        """Where it listens; a Unix socket has its path and None."""
        sockets = getattr(self._server, "sockets", ())
        return [address_of(sock) for sock in sockets]

    def close(self) -> None:
        """Accept nothing more; connections that were accepted are not touched."""
        self._server.close()
        if self._file is not None:
            self._file.remove()


async def listen(
    endpoint: Endpoint,
    factory: Factory,
    handshake_seconds: float | None,
    protocols: Sequence[str] = ("http/1.1",),
) -> Listener:
    """Begin to accept connections.

    Args:
        handshake_seconds: Most time for a TLS handshake; None for the loop's default.
        protocols: What clients over TLS may choose from by ALPN, the best first.

    Raises:
        OSError: If the place cannot be had; names it.
        InvalidOption: If a certificate cannot be read, or systemd passed no such descriptor.
    """
    loop = asyncio.get_running_loop()
    # Accepts TLS on inherited sockets too: in a worker each endpoint is one.
    tls: dict[str, Any] = {}
    if endpoint.tls is not None:
        tls["ssl"] = tls_context(endpoint.tls, protocols)
        tls["ssl_handshake_timeout"] = handshake_seconds
        tls["ssl_shutdown_timeout"] = _TLS_GOODBYE_SECONDS
    backlog = endpoint.backlog
    if endpoint.kind == "tcp":
        host = endpoint.host or "0.0.0.0"
        return Listener(
            await loop.create_server(factory, host, endpoint.port, backlog=backlog, **tls)
        )
    if endpoint.kind == "unix":
        return await _listen_unix(loop, factory, _bind_unix(endpoint), backlog, endpoint.path)
    sock = _inherit(endpoint, os.environ)
    if sock.family == socket.AF_UNIX:
        return await _listen_unix(loop, factory, sock, backlog)
    return Listener(await loop.create_server(factory, sock=sock, backlog=backlog, **tls))


def bind(endpoint: Endpoint) -> list[socket.socket]:
    """The sockets of an endpoint, listening, for other processes to accept connections on.

    Several where a name has several addresses.  Whoever calls this removes a Unix socket's file.

    Raises:
        OSError: If the place cannot be had; names it.
        InvalidOption: If systemd passed no such descriptor.
    """
    if endpoint.kind == "tcp":
        found = _bind_tcp(endpoint)
    elif endpoint.kind == "unix":
        found = [_bind_unix(endpoint)]
    else:
        found = [_inherit(endpoint, os.environ)]
    for sock in found:
        sock.listen(endpoint.backlog)
    return found


def _bind_tcp(endpoint: Endpoint) -> list[socket.socket]:
    host = endpoint.host or "0.0.0.0"
    found: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(
            host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(places):
            sock = socket.socket(family, kind, protocol)
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(address)
    except OSError as error:
        for sock in found:
            sock.close()
        place = f"{host!r}, port {endpoint.port}"
        raise OSError(error.errno, f"Cannot listen on {place}: {error.strerror}") from None
    return found


async def _listen_unix(
    loop: asyncio.AbstractEventLoop,
    factory: Factory,
    sock: socket.socket,
    backlog: int,
    path: str = "",
) -> Listener:
    more: dict[str, Any] = {}
    # From Python 3.13 on a loop removes the file of a socket that it closes, even of one that was
    # only inherited; before, there is no such parameter.
    if "cleanup_socket" in inspect.signature(loop.create_unix_server).parameters:
        more["cleanup_socket"] = False
    return Listener(
        await loop.create_unix_server(factory, sock=sock, backlog=backlog, **more), path
    )


def tls_context(tls: Tls, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """A server's context that offers these protocols by ALPN.

    Raises:
        InvalidOption: If a file is missing or not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Python's own default, which a distribution's build may leave to OpenSSL's configuration.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([*protocols])
    # Only TLS 1.2 has it, no client needs it, and each costs us more than it costs the client.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        with ExitStack() as stack:
            certificate = tls.certificate
            if tls.chain:
                # The ssl module reads a chain only from the file of its certificate.
                joined = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".pem"))
                joined.write(
                    Path(tls.certificate).read_bytes() + b"\n" + Path(tls.chain).read_bytes()
                )
                joined.flush()
                certificate = joined.name
            context.load_cert_chain(certificate, tls.private_key)
    except OSError as error:
        raise InvalidOption(
            f"The certificate {tls.certificate!r} with the key {tls.private_key!r} cannot be "
            f"loaded: {error}."
        ) from error
    return context


def _bind_unix(endpoint: Endpoint) -> socket.socket:
    path = endpoint.path
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        # Nobody can connect before `listen`, so nobody sees other permissions than these.
        os.chmod(path, endpoint.mode)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"Cannot listen on {path!r}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def _remove_stale(path: str) -> None:
    """Remove the socket that a killed server left; one that is served stays, and binding fails."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass


def _inherit(endpoint: Endpoint, environ: Mapping[str, str]) -> socket.socket:
    number = endpoint.number
    if endpoint.kind == "systemd":
        number = _systemd_descriptor(endpoint, environ)
    try:
        # A copy: whoever passed the descriptor may still want it.
        sock = socket.socket(fileno=os.dup(number))
    except OSError as error:
        raise OSError(
            error.errno, f"Descriptor {number} is not a listening socket: {error.strerror}"
        ) from None
    sock.setblocking(False)
    return sock


def _systemd_descriptor(endpoint: Endpoint, environ: Mapping[str, str]) -> int:
    count = environ.get("LISTEN_FDS", "0")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    index = endpoint.number
    if endpoint.name:
        index = names.index(endpoint.name) if endpoint.name in names else -1
    if environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        count = "0"
    if not count.isdigit() or not 0 <= index < int(count):
        raise InvalidOption(
            f"systemd passed {count} sockets, named {names}: expected "
            f"{endpoint.name or endpoint.number!r} among them."
        )
    return _SYSTEMD_FIRST + index


def address_of(sock: Any) -> Address:
    """Where a socket listens; a Unix socket has its path and None."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return (str(name[0]), int(name[1]))
    return (os.fsdecode(name), None)
