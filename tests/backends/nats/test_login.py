"""TLS, and the ways to log in, each at a real server that asks for it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from channels.backends.nats.address import parse_addresses
from channels.backends.nats.connection import NatsConnection
from channels.backends.shell import Broken
from channels.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from channels.layers import NatsChannelLayer
from channels.server.endpoints import Tls
from tests.cluster.servers import OwnServer, nats_server
from tests.processes import free_port
from tests.server.conftest import make_certificate

MakeLayer = Callable[..., NatsChannelLayer]


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[NatsChannelLayer] = []

    def make(server: OwnServer, start: str = "nats://", **config: Any) -> NatsChannelLayer:
        made.append(NatsChannelLayer(f"{start}127.0.0.1:{server.port}", **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def works(layer: NatsChannelLayer) -> None:
    """It takes and brings messages."""
    async with asyncio.timeout(20):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        assert await layer.receive(channel) == {"type": "x"}


async def is_refused(layer: NatsChannelLayer, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """It stays out of reach, and the log says why."""
    with pytest.raises(ChannelLayerUnavailable):
        await layer.group_send("room", {"type": "x"})
    assert why in caplog.text


def tls_server(folder: Path, own: Tls, more: str = "") -> OwnServer:
    files = f'cert_file: "{own.certificate}", key_file: "{own.private_key}", timeout: 10'
    return nats_server(folder, f"tls {{ {files}{more} }}")


def trusting(own: Tls, client: Tls | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=own.certificate)
    if client is not None:
        context.load_cert_chain(client.certificate, client.private_key)
    return context


async def test_tls_by_an_authority_of_ones_own(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    own = make_certificate(tmp_path)
    with tls_server(tmp_path / "nats", own) as server:
        await works(make_layer(server, "tls://", ssl_context=trusting(own)))
        await is_refused(
            make_layer(server, "tls://", send_timeout=1.0), caplog, "self-signed certificate"
        )


async def test_tls_with_the_clients_certificate(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "client").mkdir()
    own, client = make_certificate(tmp_path), make_certificate(tmp_path / "client")
    verify = f', ca_file: "{client.certificate}", verify: true'
    with tls_server(tmp_path / "nats", own, verify) as server:
        await works(make_layer(server, "tls://", ssl_context=trusting(own, client)))
        without = make_layer(server, "tls://", ssl_context=trusting(own), send_timeout=1.0)
        await is_refused(without, caplog, "out of reach")


async def test_tls_is_not_given_up_where_the_server_has_none(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    with nats_server(tmp_path) as server:
        await is_refused(
            make_layer(server, "tls://me:secret@", send_timeout=1.0), caplog, "offers no TLS"
        )


async def test_a_user_and_a_password(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    with nats_server(tmp_path, 'authorization { user: me, password: "a b/c" }') as server:
        await works(make_layer(server, "nats://me:a%20b%2Fc@"))
        wrong = make_layer(server, "nats://me:wrong@", send_timeout=1.0)
        await is_refused(wrong, caplog, "Authorization Violation")
        assert "wrong@" not in caplog.text


# Keys as NATS writes them.


def key_text(prefix: bytes, octets: bytes) -> str:
    body = prefix + octets
    body += binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body).rstrip(b"=").decode()


class Key:
    """A key, of an operator (14), an account (0) or a user (20)."""

    def __init__(self, kind: int) -> None:
        self._key = Ed25519PrivateKey.generate()
        value = kind << 3
        self.public = key_text(bytes([value]), self._key.public_key().public_bytes_raw())
        head = bytes([(18 << 3) | (value >> 5), (value & 31) << 3])
        self.seed = key_text(head, self._key.private_bytes_raw())

    def vouch(self, subject: Key, name: str, kind: str, **claims: Any) -> str:
        """A JWT by which this key says something of another one."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": name,
            "iat": 1_700_000_000,
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {"type": kind, "version": 2, **claims},
        }
        text = ".".join(octets_of(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{octets_of(self._key.sign(text.encode()))}"


def octets_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_key(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = Key(20), Key(20)
    path = tmp_path / "user.nk"
    path.write_text(mine.seed + "\n")
    more = f"authorization {{ users: [ {{ nkey: {mine.public} }} ] }}"
    with nats_server(tmp_path / "nats", more) as server:
        await works(make_layer(server, credentials=path))
        (tmp_path / "other.nk").write_text(other.seed)
        wrong = make_layer(server, credentials=tmp_path / "other.nk", send_timeout=1.0)
        await is_refused(wrong, caplog, "Authorization Violation")


async def test_credentials_with_a_jwt(tmp_path: Path, make_layer: MakeLayer) -> None:
    operator, system, account, user = Key(14), Key(0), Key(0), Key(20)
    unlimited: dict[str, Any] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
    )
    unlimited["wildcards"] = True
    limits = {**unlimited, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    vouched = operator.vouch(account, "team", "account", limits=limits)
    everything = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    path = tmp_path / "user.creds"
    path.write_text(
        "-----BEGIN NATS USER JWT-----\n"
        f"{account.vouch(user, 'me', 'user', **everything)}\n"
        "------END NATS USER JWT------\n\nKeep it secret.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    more = (
        f"operator: {operator.vouch(operator, 'site', 'operator')}\n"
        f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n"
        f"  {account.public}: {vouched}\n"
        f"  {system.public}: {operator.vouch(system, 'system', 'account', limits=unlimited)}\n}}"
    )
    with nats_server(tmp_path / "nats", more) as server:
        layer = make_layer(server, credentials=path)
        await works(layer)
        await layer.send("work", {"type": "queued"})
        assert await layer.receive("work") == {"type": "queued"}


@pytest.mark.parametrize("text", ["", "SUAIB", "-----BEGIN NATS USER JWT-----\nx\n---END"])
def test_a_file_that_holds_no_credentials_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "user.creds"
    path.write_text(text)
    with pytest.raises(InvalidChannelLayerError, match=r"user\.creds"):
        NatsChannelLayer(credentials=path)
    with pytest.raises(InvalidChannelLayerError, match="cannot be read"):
        NatsChannelLayer(credentials=tmp_path / "none")


async def test_where_nobody_listens_the_place_and_what_to_do_are_told() -> None:
    port = free_port()
    (address,) = parse_addresses(f"nats://me:secret@127.0.0.1:{port}")
    connection = NatsConnection(lambda: None)
    with pytest.raises(Broken) as raised:
        await connection.open(address, 1.0)
    await connection.close()
    said = str(raised.value)
    assert said.startswith(f"NATS at 127.0.0.1:{port}: ")
    assert said.endswith(". Start it there, or correct servers")
