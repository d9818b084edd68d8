"""TLS: handshakes that stall, break off or never were, and connections cut without a farewell."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hostile.case import get
from tests.hostile.client import RawClient
from tests.hostile.frames import WebSocketClient, text
from tests.hostile.process import ServerProcess

MIB = 1 << 20
SHORT = 0.5
#: The beginning of a ClientHello that promises 512 bytes.
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def certificate(folder: Path) -> dict[str, str]:
    """A key and a certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    files = certificate(tmp_path_factory.mktemp("tls"))
    timeouts = {"header_timeout": SHORT, "keep_alive": SHORT, "handshake_timeout": SHORT}
    process = ServerProcess({"tls": dict(files), "timeouts": timeouts | {"close_timeout": SHORT}})
    try:
        yield process
        process.assert_calm()
        assert process.state().tracebacks == []
    finally:
        process.kill()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HELLO, id="half-a-hello"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="plain-http"),
        pytest.param(b"\x80\x2e\x01\x00\x02", id="ssl-2"),
        pytest.param(bytes(range(256)), id="binary"),
    ],
)
def test_no_handshake(server: ServerProcess, sent: bytes) -> None:
    with RawClient(server.address) as client:
        client.send(sent)
        # An alert at most; never an answer in the clear.
        assert b"HTTP" not in client.read_to_end()


def test_handshakes_broken_off(server: ServerProcess) -> None:
    for sent in (b"", HELLO, HELLO + b"\0" * 100, b"GET / HTTP/1.1\r\n"):
        for _ in range(100):
            with RawClient(server.address) as client:
                client.send(sent)
                client.reset()
    before = server.state()
    for _ in range(600):
        with RawClient(server.address) as client:
            client.send(HELLO)
            client.reset()
    server.assert_calm()
    assert server.state().resident_bytes - before.resident_bytes < 2 * MIB


def test_cut_without_close_notify(server: ServerProcess) -> None:
    for _ in range(20):
        with server.client(WebSocketClient) as client:
            client.open()
            client.send(text("hello"))
            assert str(client.read_frame()) == "text 5"
            port = client.port
            client.reset()
        server.sees(port, "connect", "text 5", "disconnect 1006")


def test_truncated_request_is_no_request(server: ServerProcess) -> None:
    # RFC 8446 section 6.1: without close_notify the end may be an attacker's.
    with server.client(RawClient) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue"
        client.send(head + b"\r\n\r\n")
        assert client.response().status == 100
        client.send(b"hello")
        port = client.port
        client.reset()
    server.sees(port, "POST / gone")


def test_pipelined_over_tls(server: ServerProcess) -> None:
    with server.client(RawClient) as client:
        client.send(b"".join(get(path=b"/%d" % number) for number in range(30)))
        answers = [client.response().body for _ in range(30)]
    assert answers == [b"GET /%d 0" % number for number in range(30)]
