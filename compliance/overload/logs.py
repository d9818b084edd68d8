"""Requests whose every part tries to write a line of the log, or to drive a terminal.

    python -m compliance.overload.logs

Exit status 0 if each line that the server wrote is printable and none was written by a client.
"""

from __future__ import annotations

import socket
import sys
import time

from compliance.overload.site import Site, serving
from tests.hostile.frames import TEXT, frame, handshake

#: What a forged line begins with.
MARK = "forged-line"
ESCAPES = "%0A" + MARK + "%0D" + MARK + "%1B%5B2J%1b[31m%C2%9B2J%E2%80%A8" + MARK + "%85" + MARK
RAW = b"\xc2\x9b2J\x9b31m\xe2\x80\xa8" + MARK.encode() + b"\xc2\x85" + MARK.encode()

FIELDS = [
    *(b"User-Agent", b"Referer", b"Cookie", b"Upgrade", b"Expect", b"Host"),
    *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Port", b"Daphne-Root-Path"),
]

SITE = """
from django.conf import settings

settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["a"], DEBUG=False,
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.urls import re_path


class Async(AsyncJsonWebsocketConsumer):
    pass


class Sync(JsonWebsocketConsumer):
    pass


class Fails(AsyncHttpConsumer):
    async def handle(self, body):
        raise ValueError("as asked")


urlpatterns = []
application = ProtocolTypeRouter({
    "http": URLRouter([re_path("^fails", Fails.as_asgi()), re_path("", django_application)]),
    "websocket": OriginValidator(
        URLRouter([re_path("^async", Async.as_asgi()), re_path("^sync", Sync.as_asgi())]),
        ["a"],
    ),
})
"""


def send(site: Site, data: bytes, later: bytes = b"") -> None:
    """Send on a connection of its own, and wait for what comes."""
    with socket.create_connection(("127.0.0.1", site.port), 10) as client:
        client.settimeout(1.0)
        for piece in (data, later):
            try:
                client.sendall(piece)
                client.recv(65536)
            except OSError:
                return


def attack(site: Site) -> None:
    host, origin = b"Host: a\r\n", b"Origin: http://a"
    for path in ("", "fails/", "missing/"):
        line = f"GET /{path}{ESCAPES}?{ESCAPES} HTTP/1.1\r\n".encode()
        send(site, line + host + b"\r\n")
    line = f"GET /missing/{ESCAPES} HTTP/1.1\r\n".encode()
    for name in FIELDS:
        send(site, line + host + name + b": a" + RAW + b"\r\n\r\n")
        send(site, line + host + name + b": " + ESCAPES.encode() + b"\r\n\r\n")
    send(site, b"GET /\n" + MARK.encode() + b" HTTP/1.1\r\n\r\n")
    send(site, b"GET /" + RAW + b" HTTP/1.1\r\n" + host + b"\r\n")
    for path in ("async", "sync", "nowhere"):
        target = f"/{path}/{ESCAPES}?{ESCAPES}"
        for message in (b"{", b"{" + RAW, b'"\\n' + MARK.encode() + b'"', b"\xff" + RAW):
            send(site, handshake(target, origin), frame(TEXT, message))
        send(site, handshake(target, b"Origin: http://" + ESCAPES.encode()))
        send(site, handshake(target, b"Origin: http://" + RAW))
        send(site, handshake(target, origin, b"Sec-WebSocket-Protocol: " + RAW))


def main() -> int:
    with serving(SITE, "--trusted-proxies", "127.0.0.1", "--verbosity", "2") as site:
        attack(site)
        time.sleep(1.0)
        written = site.log.read_bytes()
    # As a terminal and as other programs cut it: str.splitlines knows more line ends than LF.
    lines = written.decode("utf-8", "surrogateescape").split("\n")
    forged = [line for line in lines if line.startswith(MARK)]
    unprintable = [line for line in lines if not line.isprintable()]
    print(f"{len(forged) + len(unprintable)} lines of {len(lines)} were written by a client")
    for line in [*forged, *unprintable][:20]:
        print(f"  {line[:200]!a}")
    return 0 if not forged and not unprintable and len(lines) > 40 else 1


if __name__ == "__main__":
    sys.exit(main())
