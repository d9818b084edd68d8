"""Methods, conditions and cookies as a Django site answers them over our server.

RFC 9110 sections 13 (conditional requests) and 15.5.6 (405); RFC 6265 section 4.2 (cookies).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views import View
from django.views.decorators.http import condition, require_http_methods

from channels.kit.types import Application
from channels.server import Server, ServerOptions, parse_endpoint
from tests.server.client import Answer, connect

TAG = '"v1"'
CHANGED = datetime(2020, 1, 1, tzinfo=UTC)
CHANGED_TEXT = "Wed, 01 Jan 2020 00:00:00 GMT"


@condition(etag_func=lambda _: TAG, last_modified_func=lambda _: CHANGED)
async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


async def cookies(request: HttpRequest) -> HttpResponse:
    return JsonResponse(
        {"read": request.COOKIES, "sent": request.META.get("HTTP_COOKIE", "")},
    )


@require_http_methods(["GET", "HEAD"])
async def read_only(request: HttpRequest) -> HttpResponse:
    return HttpResponse("read")


class Document(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("document")

    async def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("saved")


urlpatterns = [
    path("page", page),
    path("cookies", cookies),
    path("read-only", read_only),
    path("document", Document.as_view()),
]


class Site:
    """A client of the site."""

    def __init__(self, address: Any) -> None:
        self._address = address

    async def ask(self, method: str, path: str, *lines: str) -> Answer:
        client = await connect(self._address)
        try:
            client.request(method, path, *lines)
            return await client.answer(method)
        finally:
            await client.close()


@pytest.fixture
async def site(settings: Any) -> AsyncIterator[Site]:
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    settings.MIDDLEWARE = []
    server = Server(
        cast(Application, ASGIHandler()),
        [parse_endpoint(r"tcp:port=0:interface=127.0.0.1")],
        ServerOptions(lifespan="off"),
    )
    await server.start()
    try:
        yield Site(server.addresses[0])
    finally:
        await server.stop(1)


async def test_a_method_that_is_not_allowed(site: Site) -> None:
    # RFC 9110 section 15.5.6: "The origin server MUST generate an Allow header field in a 405".
    got = await site.ask("DELETE", "/read-only")
    assert (got.status, got["allow"]) == (405, "GET, HEAD")


async def test_options_names_the_methods(site: Site) -> None:
    got = await site.ask("OPTIONS", "/document")
    assert (got.status, got["allow"]) == (200, "GET, POST, HEAD, OPTIONS")


async def test_content_has_a_type(site: Site) -> None:
    got = await site.ask("GET", "/document")
    assert got["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("sent", [TAG, f"W/{TAG}", f'"v0", {TAG}', f'"v0",W/{TAG}'])
async def test_an_entity_tag_that_matches(site: Site, sent: str) -> None:
    # RFC 9110 section 13.1.2: the weak comparison; 15.4.5: the 304 carries the ETag.
    got = await site.ask("GET", "/page", f"If-None-Match: {sent}")
    assert (got.status, got["etag"]) == (304, TAG)


async def test_an_entity_tag_that_does_not_match(site: Site) -> None:
    got = await site.ask("GET", "/page", 'If-None-Match: "v2"')
    assert (got.status, got["etag"], got.body) == (200, TAG, b"page")


async def test_an_asterisk_matches_any_entity_tag(site: Site) -> None:
    assert (await site.ask("GET", "/page", "If-None-Match: *")).status == 304


async def test_an_entity_tag_without_quotes(site: Site) -> None:
    assert (await site.ask("GET", "/page", "If-None-Match: v1")).status == 200


async def test_an_entity_tag_decides_before_a_date(site: Site) -> None:
    # RFC 9110 section 13.1.3: If-Modified-Since is ignored beside If-None-Match.
    fields = ('If-None-Match: "v2"', f"If-Modified-Since: {CHANGED_TEXT}")
    assert (await site.ask("GET", "/page", *fields)).status == 200


async def test_a_date_that_matches(site: Site) -> None:
    got = await site.ask("GET", "/page", f"If-Modified-Since: {CHANGED_TEXT}")
    assert (got.status, got["last-modified"]) == (304, CHANGED_TEXT)


@pytest.mark.parametrize(
    ("date", "statuses"),
    [
        pytest.param("yesterday", {200}, id="no-date"),
        pytest.param("Tue, 31 Dec 2019 23:59:59 GMT", {200}, id="before-the-change"),
        # The condition is false for every date after the last change; to distrust a date that is
        # still to come is the server's choice.
        pytest.param("Fri, 01 Jan 2100 00:00:00 GMT", {200, 304}, id="in-the-future"),
    ],
)
async def test_dates_that_decide_nothing(site: Site, date: str, statuses: set[int]) -> None:
    got = await site.ask("GET", "/page", f"If-Modified-Since: {date}")
    assert got.status in statuses


async def test_cookies_are_passed_on(site: Site) -> None:
    got = await site.ask("GET", "/cookies", 'Cookie: a=b; c="d e"; f=%20')
    assert json.loads(got.body)["sent"] == 'a=b; c="d e"; f=%20'


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        pytest.param(["Cookie: a=b"], {"a": "b"}, id="one"),
        pytest.param(["Cookie: a=1; b=2; c=3"], {"a": "1", "b": "2", "c": "3"}, id="three"),
        pytest.param(["Cookie: a="], {"a": ""}, id="empty-value"),
        pytest.param(["Cookie:"], {}, id="empty-field"),
        pytest.param(["Cookie: a=b=c/d+e=="], {"a": "b=c/d+e=="}, id="special-characters"),
        pytest.param(["Cookie: a=1;b=2"], {"a": "1", "b": "2"}, id="no-space"),
    ],
)
async def test_cookies_are_read(site: Site, lines: list[str], read: dict[str, str]) -> None:
    got = await site.ask("GET", "/cookies", *lines)
    assert (got.status, json.loads(got.body)["read"]) == (200, read)


@pytest.mark.parametrize("sent", ["===;;;", ";", "=", '"', 'a="', "a; b; c=d", "\t;\t="])
async def test_malformed_cookies_do_no_harm(site: Site, sent: str) -> None:
    assert (await site.ask("GET", "/cookies", f"Cookie: {sent}")).status == 200


async def test_two_cookie_fields_are_both_passed_on(site: Site) -> None:
    # RFC 6265 section 5.4 forbids them to user agents, and says nothing to servers: Django joins.
    got = await site.ask("GET", "/cookies", "Cookie: a=1", "Cookie: b=2")
    sent = json.loads(got.body)["sent"]
    assert (got.status, "a=1" in sent, "b=2" in sent) == (200, True, True)


async def test_many_cookies(site: Site) -> None:
    sent = "; ".join(f"c{n}={n}" for n in range(1000))
    got = await site.ask("GET", "/cookies", f"Cookie: {sent}")
    assert len(json.loads(got.body)["read"]) == 1000
