"""Plain views, sync and async, that a server must carry faithfully."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.contrib.auth import alogin, alogout, get_user_model
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.method} {request.get_full_path()}", headers={"X-One": "1"})


def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"bytes": len(request.body), "type": request.content_type})


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(status=204)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


async def log_in(request: HttpRequest) -> HttpResponse:
    user = await get_user_model().objects.aget(username="ada")
    await alogin(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("welcome")


async def log_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("goodbye")


def session(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"rooms": request.session.get("rooms", [])})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"part %d;" % number

    return StreamingHttpResponse(parts())


def failing(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as asked")


urlpatterns = [
    path("hello/", hello),
    path("upload/", upload),
    path("cookies/", cookies),
    path("login/", log_in),
    path("logout/", log_out),
    path("session/", session),
    path("stream/", stream),
    path("failing/", failing),
]
