"""Requests that come as messages, and responses that leave as messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from channels.exceptions import ChannelFull, RequestAborted, RequestTimeout
from channels.handler import AsgiHandler, AsgiRequest, ViewConsumer
from channels.legacy.exceptions import ResponseLater
from channels.legacy.message import Message
from channels.legacy.staticfiles import StaticFilesConsumer
from tests.legacy.conftest import MakeSite

# The signals of a request look at connections to the database.
pytestmark = pytest.mark.django_db


def show(request: Any) -> HttpResponse:
    return JsonResponse(
        {
            "path": request.path,
            "path_info": request.path_info,
            "method": request.method,
            "get": request.GET.dict(),
            "post": request.POST.dict(),
            "cookies": request.COOKIES,
            "meta": {key: value for key, value in request.META.items() if key.isupper()},
            "scheme": request.scheme,
        }
    )


def streaming(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(["first", b"second"]))


async def streaming_async(request: Any) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first"

    return StreamingHttpResponse(parts())


def file(request: Any) -> FileResponse:
    return FileResponse(BytesIO(b"x" * (AsgiHandler.chunk_size + 1)))


def later(request: Any) -> HttpResponse:
    raise AsgiRequest.ResponseLater


def cookies(request: Any) -> HttpResponse:
    response = HttpResponse("ok", headers={"X-Word": "caf\xe9"})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def fails(request: Any) -> HttpResponse:
    raise LookupError("no such room")


closed: list[str] = []


def closing(request: Any) -> Any:
    response: Any = StreamingHttpResponse(iter(["first", b"second"]))
    response._resource_closers.append(lambda: closed.append(request.path))
    return response


urlpatterns = [
    path("closing/", closing),
    path("show/", show),
    path("streaming/", streaming),
    path("streaming-async/", streaming_async),
    path("file/", file),
    path("later/", later),
    path("cookies/", cookies),
    path("fails/", fails),
]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.DEBUG_PROPAGATE_EXCEPTIONS = False


class Client:
    """Sends requests as an interface server does."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.reply = layer.new_channel("http.response!")

    def message(self, path: str | bytes, /, **more: Any) -> Message:
        content = {
            "reply_channel": self.reply,
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [[b"host", b"testserver"]],
            **more,
        }
        return Message(content, "http.request", self.layer)

    def answers(self, path: str | bytes, /, **more: Any) -> list[dict[str, Any]]:
        return list(AsgiHandler()(self.message(path, **more)))


@pytest.fixture
def client(site: MakeSite) -> Client:
    return Client(site())


def test_a_request_has_what_djangos_has(client: Client) -> None:
    message = client.message(
        "/app/show/caf\xe9",
        method="POST",
        root_path="/app",
        query_string=b"name=a&name=b",
        scheme="https",
        client=["10.0.0.1", 5000],
        server=["example.com", 443],
        headers=[
            [b"host", b"example.com"],
            [b"cookie", b"session=abc"],
            [b"content-type", b"application/x-www-form-urlencoded"],
            [b"content-length", b"3"],
            [b"x-word", b"one"],
            [b"x-word", b"two"],
        ],
        body=b"x=1",
    )
    request = AsgiRequest(message)
    assert request.message is message
    assert request.reply_channel.name == client.reply
    assert (request.path, request.path_info) == ("/app/show/caf\xe9", "/show/caf\xe9")
    assert request.script_name == "/app"
    assert request.method == "POST"
    assert request.GET.getlist("name") == ["a", "b"]
    assert request.POST.dict() == {"x": "1"}
    assert request.COOKIES == {"session": "abc"}
    assert request.is_secure()
    assert request.headers["X-Word"] == "one,two"
    expected = {
        "REMOTE_ADDR": "10.0.0.1",
        "REMOTE_HOST": "10.0.0.1",
        "REMOTE_PORT": 5000,
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "443",
        "CONTENT_LENGTH": "3",
    }
    assert {key: request.META[key] for key in expected} == expected
    request.close()


def test_messages_of_older_servers_are_understood(client: Client) -> None:
    message = client.message(
        "/", path=b"/caf\xc3\xa9", headers={"Host": "a.example", b"X-Word": b"one"}
    )
    request = AsgiRequest(message)
    assert request.path == "/caf\xe9"
    assert request.headers["X-Word"] == "one"
    assert request.META["HTTP_HOST"] == "a.example"
    request.close()


def test_a_large_body_comes_in_chunks(client: Client) -> None:
    channel = client.layer.new_channel("http.request.body?")
    for content in (b"b" * 70_000, b"", b"c"):
        client.layer.send(channel, {"content": content, "more_content": content != b"c"})
    request = AsgiRequest(client.message("/", body=b"a", body_channel=channel))
    assert request.body == b"a" + b"b" * 70_000 + b"c"
    assert client.layer.receive([channel]) == (None, None)


def test_a_client_that_goes_while_its_body_is_read(client: Client) -> None:
    channel = client.layer.new_channel("http.request.body?")
    client.layer.send(channel, {"content": b"b", "more_content": True})
    client.layer.send(channel, {"closed": True})
    message = client.message("/show/", body_channel=channel)
    with pytest.raises(RequestAborted) as raised:
        AsgiRequest(message)
    assert not isinstance(raised.value, RequestTimeout)
    client.layer.send(channel, {"closed": True})
    assert list(AsgiHandler()(message)) == []


def test_a_body_that_pauses_too_long(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsgiRequest, "body_receive_timeout", 0.01)
    message = client.message("/show/", body_channel="http.request.body.none")
    with pytest.raises(RequestTimeout, match=r"Nothing .* came for 0.01 s"):
        AsgiRequest(message)
    assert [each["status"] for each in AsgiHandler()(message)] == [408]


@pytest.mark.parametrize("more", [{"path": b"/\xff"}, {"query_string": b"\xff"}])
def test_what_is_no_utf_8_is_a_bad_request(more: Any, client: Client) -> None:
    assert [each["status"] for each in client.answers("/", **more)] == [400]


def test_what_is_no_request_is_an_error(client: Client) -> None:
    with pytest.raises(KeyError, match="path"):
        AsgiRequest(Message({"text": "hello"}, "websocket.receive", client.layer))


def test_a_response_is_one_message(client: Client) -> None:
    (answer,) = client.answers("/cookies/")
    assert answer["status"] == 200
    assert (answer["content"], answer["more_content"]) == (b"ok", False)
    headers = answer["headers"]
    assert (b"X-Word", b"caf\xe9") in headers
    assert [value for name, value in headers if name == b"Set-Cookie"] == [
        b"one=1; Path=/",
        b"two=2; Path=/",
    ]


@pytest.mark.parametrize("path", ["/streaming/", "/streaming-async/"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_a_response_that_streams(path: str, client: Client) -> None:
    answers = client.answers(path)
    assert "status" in answers[0]
    assert not any("status" in each for each in answers[1:])
    assert [each["more_content"] for each in answers] == [True] * (len(answers) - 1) + [False]
    assert b"".join(each["content"] for each in answers).startswith(b"first")
    assert answers[-1]["content"] == b""


def test_a_stream_without_parts_has_a_status() -> None:
    (answer,) = AsgiHandler.encode_response(StreamingHttpResponse(iter([]), status=201))
    assert (answer["status"], answer["more_content"]) == (201, False)


def test_large_content_is_cut(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsgiHandler, "chunk_size", 4)
    assert list(AsgiHandler.chunk_bytes(b"123456789")) == [
        (b"1234", False),
        (b"5678", False),
        (b"9", True),
    ]
    assert list(AsgiHandler.chunk_bytes(b"1234")) == [(b"1234", True)]
    assert list(AsgiHandler.chunk_bytes(b"")) == [(b"", True)]
    answers = list(AsgiHandler.encode_response(HttpResponse("123456")))
    assert [each["content"] for each in answers] == [b"1234", b"56"]
    assert [each["more_content"] for each in answers] == [True, False]


def test_a_file_is_read_in_pieces_of_one_message(client: Client) -> None:
    sizes = [len(each["content"]) for each in client.answers("/file/")]
    assert sizes == [AsgiHandler.chunk_size, 1, 0]


def test_a_view_may_leave_the_response_to_a_consumer(client: Client) -> None:
    assert AsgiRequest.ResponseLater is ResponseLater
    assert client.answers("/later/") == []


def test_a_view_that_fails_is_a_500(client: Client) -> None:
    assert [each["status"] for each in client.answers("/fails/")] == [500]
    assert [each["status"] for each in client.answers("/nowhere/")] == [404]


def test_a_consumer_sends_the_response(client: Client) -> None:
    ViewConsumer()(client.message("/show/"))
    _, answer = client.layer.receive([client.reply])
    assert answer["status"] == 200


def test_a_slow_client_is_waited_for(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(site(capacity=1))
    found: list[bytes] = []

    def read(_: float) -> None:
        found.append(client.layer.receive([client.reply])[1]["content"])

    monkeypatch.setattr("channels.legacy.pacing.time.sleep", read)
    ViewConsumer()(client.message("/streaming/"))
    read(0.0)
    assert found == [b"first", b"second", b""]


def test_a_client_that_takes_nothing_is_given_up(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ViewConsumer, "reply_timeout", 0.0)
    client = Client(site(capacity=1))
    with pytest.raises(ChannelFull):
        ViewConsumer()(client.message("/closing/"))
    assert closed == ["/closing/"]


def test_static_files_are_served_in_development(
    site: MakeSite, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "hello.txt").write_text("hello")
    settings.STATICFILES_DIRS = [str(tmp_path)]
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    client = Client(site())
    consumer = StaticFilesConsumer()

    def get(path: str) -> Iterator[Any]:
        consumer(client.message(path))
        more = True
        while more:
            answer = client.layer.receive([client.reply])[1]
            more = answer["more_content"]
            yield answer

    found = list(get("/static/hello.txt"))
    assert found[0]["status"] == 200
    assert b"".join(each["content"] for each in found) == b"hello"
    assert next(get("/static/none.txt"))["status"] == 404
    view = next(get("/show/"))
    assert view["status"] == 200
    assert b"Content-Length" in dict(view["headers"]), "the site's middleware is at work"
    assert django_settings.STATIC_URL == "/static/"
