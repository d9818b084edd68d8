"""A Django site with large bodies, the same under every server that is compared."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="a benchmark keeps no secrets",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING_CONFIG=None,
)

from django.core.asgi import get_asgi_application  # noqa: E402 - needs the settings

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

DOWNLOAD_BYTES = 30_000_000


def download(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"x" * DOWNLOAD_BYTES)


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@csrf_exempt
def failing(request: HttpRequest) -> HttpResponse:
    raise ValueError(f"{len(request.body)} bytes, and no use for them")


class Failing(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise ValueError("no use for this message")


class FailingSync(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise ValueError("no use for this message")


urlpatterns: list[Any] = [
    path("download", download),
    path("upload", upload),
    path("failing", failing),
]
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("failing", Failing.as_asgi()),  # type: ignore[arg-type]
                path("failing-sync", FailingSync.as_asgi()),  # type: ignore[arg-type]
            ]
        ),
    }
)
