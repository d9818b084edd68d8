from __future__ import annotations

import os
import socket
import ssl
import stat
from pathlib import Path

import pytest

from channels.exceptions import InvalidOption
from channels.kit.types import Receive, Scope, Send
from channels.server.endpoints import Endpoint, Tls
from channels.server.listeners import bind, tls_context
from tests.server.applications import echo, respond
from tests.server.client import Client, connect
from tests.server.conftest import Serve, settled


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it knows of the connection."""
    await respond(send, f"{scope['scheme']} {scope['client']} {scope['server']}".encode())


async def ask(client: Client) -> str:
    client.get()
    return (await client.answer()).body.decode()


async def test_tcp(serve: Serve) -> None:
    running = await serve(tell)
    client = await running.connect()
    ours = client.writer.get_extra_info("sockname")
    assert await ask(client) == f"http {list(ours)} {list(running.server.addresses[0])}"


async def test_ipv6(serve: Serve) -> None:
    running = await serve(tell, r"tcp:port=0:interface=\:\:1")
    client = await running.connect()
    host, port = client.writer.get_extra_info("sockname")[:2]
    assert await ask(client) == f"http {[host, port]} {list(running.server.addresses[0])}"


async def test_a_port_that_is_taken_is_an_error(serve: Serve) -> None:
    running = await serve(echo)
    _, port = running.server.addresses[0]
    with pytest.raises(OSError, match="in use"):
        await serve(echo, f"tcp:port={port}:interface=127.0.0.1")


async def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    running = await serve(tell, f"unix:{path}:mode=600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.server.addresses == [(str(path), None)]
    assert await ask(await running.connect()) == f"http None {[str(path), None]}"
    await running.server.stop()
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    running = await serve(echo, f"unix:{path}")
    assert await ask(await running.connect()) == "GET / "


async def test_a_unix_socket_that_is_served_is_not_replaced(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    running = await serve(echo, f"unix:{path}")
    with pytest.raises(OSError, match="in use"):
        await serve(echo, f"unix:{path}")
    assert await ask(await running.connect()) == "GET / "


async def test_a_file_in_the_place_of_a_unix_socket_stays(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use"):
        await serve(echo, f"unix:{path}")
    assert path.read_text() == "data"


async def test_a_unix_socket_of_a_successor_stays(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    first = await serve(echo, f"unix:{path}")
    path.unlink()
    second = await serve(echo, f"unix:{path}")
    await first.server.stop()
    assert await ask(await second.connect()) == "GET / "


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_inherited_descriptor(serve: Serve, tmp_path: Path, family: int) -> None:
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "fd.sock"))
        sock.listen()
        running = await serve(echo, f"fd:fileno={sock.fileno()}")
        assert await ask(await running.connect()) == "GET / "
        await running.server.stop()
        # It is still ours, for the next server.
        again = await serve(echo, f"fd:fileno={sock.fileno()}")
        assert await ask(await again.connect()) == "GET / "


async def test_a_descriptor_that_is_none(serve: Serve) -> None:
    with pytest.raises(OSError, match="Descriptor 999"):
        await serve(echo, "fd:fileno=999")


async def test_systemd_without_sockets(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    with pytest.raises(InvalidOption, match="passed 0 sockets"):
        await serve(echo, "systemd:index=0")


async def test_systemd(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        monkeypatch.setattr("channels.server.listeners._SYSTEMD_FIRST", sock.fileno() - 1)
        monkeypatch.setenv("LISTEN_FDS", "2")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDNAMES", "other:web")
        running = await serve(echo, "systemd:name=web")
        assert await ask(await running.connect()) == "GET / "
        with pytest.raises(InvalidOption, match="'api'"):
            await serve(echo, "systemd:name=api")


def trusting(tls: Tls) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tls.certificate)


async def test_tls(serve: Serve, tls: Tls) -> None:
    running = await serve(tell, Endpoint("tcp", "127.0.0.1", tls=tls))
    client = await connect(running.server.addresses[0], trusting(tls))
    assert client.writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}
    for _ in range(2):
        assert (await ask(client)).startswith("https ")
    await client.close()
    await settled(lambda: running.server.connection_count == 0)


async def test_tls_with_a_chain_of_its_own(serve: Serve, tls: Tls) -> None:
    chained = Tls(tls.private_key, tls.certificate, chain=tls.certificate)
    running = await serve(echo, Endpoint("tcp", "127.0.0.1", tls=chained))
    client = await connect(running.server.addresses[0], trusting(tls))
    assert await ask(client) == "GET / "
    await client.close()


async def test_tls_that_never_shakes_hands(serve: Serve, tls: Tls) -> None:
    endpoint = Endpoint("tcp", "127.0.0.1", tls=tls)
    running = await serve(echo, endpoint, header_timeout=0.1)
    client = await running.connect()
    assert await client.rest() == b""


async def test_plain_http_on_a_tls_port_harms_nobody(serve: Serve, tls: Tls) -> None:
    running = await serve(echo, Endpoint("tcp", "127.0.0.1", tls=tls))
    plain = await running.connect()
    plain.get()
    await plain.rest()
    client = await connect(running.server.addresses[0], trusting(tls))
    assert await ask(client) == "GET / "
    await client.close()


async def test_a_certificate_that_is_not_there(serve: Serve) -> None:
    with pytest.raises(InvalidOption, match=r"nowhere\.pem"):
        await serve(echo, "ssl:0:privateKey=nowhere.pem")


def test_tls_does_not_negotiate_again(tls: Tls) -> None:
    assert tls_context(tls).options & ssl.OP_NO_RENEGOTIATION
    assert tls_context(tls).minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_bound_socket_takes_connections_before_anybody_accepts_them() -> None:
    (sock,) = bind(Endpoint("tcp", host="127.0.0.1"))
    with sock, socket.create_connection(sock.getsockname()) as client:
        assert client.getpeername() == sock.getsockname()


def test_a_place_that_is_taken_cannot_be_bound(tmp_path: Path) -> None:
    (sock,) = bind(Endpoint("tcp", host="127.0.0.1"))
    with sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot listen on '127.0.0.1', port {port}: "):
            bind(Endpoint("tcp", host="127.0.0.1", port=port))


async def test_tls_on_an_inherited_socket(serve: Serve, tls: Tls) -> None:
    (sock,) = bind(Endpoint("tcp", host="127.0.0.1"))
    with sock:
        running = await serve(tell, Endpoint("fd", number=sock.fileno(), tls=tls))
        context = ssl.create_default_context(cafile=tls.certificate)
        client = await connect(running.server.addresses[0], context)
        assert (await ask(client)).startswith("https ")
        client.writer.close()
