"""Uploads that are too large, in chunks, and very many fields: refused early, in little memory.

    python -m compliance.overload.upload

A Django view behind `--max-body-bytes` and an AsyncHttpConsumer with default settings, both with
the limit of 2.5 MB, get 100 MB; then a request has 10,000 fields of one name.  Exit status 0 if the
answers are 413, 413 and 431, the server grew by at most 4 MiB, and the fields took no time.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from dataclasses import dataclass

from compliance.overload.site import Site, serving

MIB = 1 << 20
BAR_MIB = 4.0
#: Django's default for DATA_UPLOAD_MAX_MEMORY_SIZE.
LIMIT = 2_621_440
MOST_FIELD_SECONDS = 0.1

SITE = """
from django.conf import settings

settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], INSTALLED_APPS=["channels"]
)
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

django_application = get_asgi_application()

from channels.generic.http import AsyncHttpConsumer
from channels.routing import URLRouter


@csrf_exempt
async def view(request):
    return HttpResponse(str(len(request.body)))


class Consumer(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, str(len(body)).encode())


urlpatterns = [path("view", view)]
application = URLRouter(
    [path("consumer", Consumer.as_asgi()), re_path("", django_application)]
)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    status: int
    #: MB of the body that were sent before the answer.
    sent: int
    grown: float
    cpu: float


def ask(site: Site, head: bytes, piece: bytes = b"", times: int = 0) -> Outcome:
    """Send a request until it is answered."""
    site.forget_peak()
    before, cpu = site.peak_bytes(), site.cpu_seconds()
    answer, sent = b"", 0
    with socket.create_connection(("127.0.0.1", site.port), 30) as client:
        with contextlib.suppress(OSError):
            client.sendall(head)
            while sent < times:
                client.sendall(piece)
                sent += 1
            client.sendall(b"0\r\n\r\n" if times else b"")
        with contextlib.suppress(OSError):
            answer = client.recv(4096)
    # What its memory was at the worst is known only once it has read what the kernel held.
    time.sleep(0.5)
    status = re.match(rb"HTTP/1.1 (\d+)", answer)
    return Outcome(
        int(status[1]) if status else 0,
        sent,
        (site.peak_bytes() - before) / MIB,
        site.cpu_seconds() - cpu,
    )


def upload(site: Site, path: str) -> Outcome:
    """100 MB in chunks of 1 MB."""
    head = f"POST /{path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return ask(site, head.encode(), b"100000\r\n" + bytes(MIB) + b"\r\n", 100)


def main() -> int:
    with serving(SITE, "--max-body-bytes", str(LIMIT)) as site:
        ask(site, b"GET /view HTTP/1.1\r\nHost: a\r\n\r\n")
        view = upload(site, "view")
    with serving(SITE) as site:
        ask(site, b"GET /consumer HTTP/1.1\r\nHost: a\r\n\r\n")
        consumer = upload(site, "consumer")
        head = b"GET /view HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 10_000 + b"\r\n"
        fields = ask(site, head)
    found = {"view, --max-body-bytes": view, "AsyncHttpConsumer": consumer, "fields": fields}
    worst = max(outcome.grown for outcome in found.values())
    statuses = [outcome.status for outcome in found.values()]
    print(f"{'/'.join(map(str, statuses))}, {worst:.1f} MB more")
    for name, outcome in found.items():
        print(
            f"  {name}: {outcome.status} after {outcome.sent} MB, {outcome.grown:.1f} MB more, "
            f"{outcome.cpu:.2f} s of CPU"
        )
    good = statuses == [413, 413, 431] and fields.cpu <= MOST_FIELD_SECONDS
    return 0 if good and worst <= BAR_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
