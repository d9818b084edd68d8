"""Django's views for requests that come as messages on `http.request`."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, ClassVar, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.http import FileResponse, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from channels.exceptions import RequestAborted, RequestTimeout
from channels.legacy import exceptions
from channels.legacy.message import Message
from channels.legacy.pacing import PacedReply

logger = logging.getLogger("django.request")


class AsgiRequest(ASGIRequest):
    """Django's request, made from a message on `http.request`; reads the whole body.

    Attributes:
        message: The message.
        reply_channel: Where the response goes.

    Raises:
        UnicodeDecodeError: If the path or the query string is no UTF-8.
        RequestTimeout: If the body pauses for more than `body_receive_timeout` seconds.
        RequestAborted: If the client went away before its body was complete.
    """

    ResponseLater = exceptions.ResponseLater
    body_receive_timeout = 60

    def __init__(self, message: Message) -> None:
        self.message = message
        self.reply_channel = message.reply_channel
        scope = _scope(message)
        body = self._read_body()
        try:
            super().__init__(scope, body)
        except BaseException:
            body.close()
            raise

    def _read_body(self) -> IO[bytes]:
        first = self.message.get("body") or b""
        channel = self.message.get("body_channel")
        if not channel:
            # Consumers that make a request of their own do not close it.
            return BytesIO(first)
        # Closed with the request.
        body = SpooledTemporaryFile(settings.FILE_UPLOAD_MAX_MEMORY_SIZE)  # noqa: SIM115
        try:
            body.write(first)
            for chunk in self._chunks(channel):
                body.write(chunk)
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return cast(IO[bytes], body)

    def _chunks(self, channel: str) -> Iterator[bytes]:
        more = True
        while more:
            chunk = self._next_chunk(channel)
            if chunk.get("closed"):
                raise RequestAborted("The client went away before its request was complete.")
            yield chunk.get("content") or b""
            more = bool(chunk.get("more_content"))

    def _next_chunk(self, channel: str) -> dict[str, Any]:
        seconds = self.body_receive_timeout
        layer = self.message.channel_layer
        _, chunk = layer.receive([channel], block=True, timeout=seconds)
        if chunk is None:
            raise RequestTimeout(f"Nothing of the request's body came for {seconds} s.")
        found: dict[str, Any] = chunk
        return found


class _ResponseLater(HttpResponse):
    """In the place of a response that a consumer will send."""


class AsgiHandler(BaseHandler):
    """Django's views, from a message to the messages of the response."""

    request_class: type[AsgiRequest] = AsgiRequest
    #: Most bytes of content in one message.
    chunk_size: ClassVar[int] = 512 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    def __call__(self, message: Message) -> Generator[dict[str, Any]]:
        """The messages of the response to a request; none if it is sent later, or not wanted."""
        set_script_prefix(get_script_prefix(message.content))
        request_started.send(sender=self.__class__, message=message)
        response = self._respond(message)
        if response is None:
            return
        if isinstance(response, _ResponseLater):
            response.close()
            return
        # A file is read in pieces of one message each.
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        yield from self.encode_response(response)

    def _respond(self, message: Message) -> HttpResponseBase | None:
        """The response, or None for a client that has gone."""
        try:
            request = self.request_class(message)
        except UnicodeDecodeError:
            logger.warning("Bad Request (UnicodeDecodeError)", extra={"status_code": 400})
            return HttpResponseBadRequest()
        except RequestTimeout as error:
            logger.warning("Request Timeout: %s", error, extra={"status_code": 408})
            return HttpResponse("408 Request Timeout", status=408, content_type="text/plain")
        except RequestAborted:
            return None
        return self.get_response(request)

    def process_exception_by_middleware(self, exception: Exception, request: Any) -> Any:
        """What middleware makes of a view's exception; nothing of ResponseLater."""
        if isinstance(exception, exceptions.ResponseLater):
            return _ResponseLater()
        return super().process_exception_by_middleware(exception, request)

    @classmethod
    def encode_response(cls, response: Any) -> Iterator[dict[str, Any]]:
        """The messages that carry a response of Django, which is closed after the last.

        The first one has `status` and `headers`.  All have `content`, and but for the last
        `more_content`.
        """
        message: dict[str, Any] = {"status": response.status_code, "headers": _headers(response)}
        try:
            if response.streaming:
                for part in response:
                    for chunk, _ in cls.chunk_bytes(part):
                        yield message | {"content": chunk, "more_content": True}
                        message = {}
                # Only now is it known that nothing more follows.
                yield message | {"content": b"", "more_content": False}
            else:
                for chunk, is_last in cls.chunk_bytes(response.content):
                    yield message | {"content": chunk, "more_content": not is_last}
                    message = {}
        finally:
            response.close()

    @classmethod
    def chunk_bytes(cls, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Pieces of at most `chunk_size` bytes, each with whether it is the last."""
        if not data:
            yield data, True
        for start in range(0, len(data), cls.chunk_size):
            end = start + cls.chunk_size
            yield data[start:end], end >= len(data)


class ViewConsumer:
    """A consumer for `http.request` that answers with Django's views."""

    handler_class: type[AsgiHandler] = AsgiHandler
    #: Seconds that a client may take nothing of its response; then the rest is dropped.
    reply_timeout: float = 60

    def __init__(self) -> None:
        self.handler = self.handler_class()

    def __call__(self, message: Message, **_: Any) -> None:
        """Answer a request; what is left of an answer is dropped when its client has gone.

        Raises:
            ChannelFull: If the client takes nothing of it for `reply_timeout` seconds.
        """
        reply = PacedReply(message, self.reply_timeout)
        parts = self.handler(message)
        try:
            for part in parts:
                reply.send(part)
        except RequestAborted as error:
            logger.debug("%s", error)
        finally:
            # The response is closed with them.
            parts.close()


def _scope(message: Message) -> dict[str, Any]:
    """The same as Django's request takes it."""
    headers = message.get("headers") or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    path = message["path"]
    return {
        "type": "http",
        "method": message["method"],
        "path": path.decode() if isinstance(path, bytes) else path,
        "root_path": message.get("root_path") or "",
        "query_string": message.get("query_string", b""),
        "scheme": message.get("scheme", "http"),
        "client": message.get("client"),
        "server": message.get("server"),
        "headers": [(_field(name).lower(), _field(value)) for name, value in pairs],
    }


def _field(value: bytes | str) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else value


def _headers(response: Any) -> list[tuple[bytes, bytes]]:
    fields = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    cookies = response.cookies.values()
    return fields + [(b"Set-Cookie", each.output(header="").strip().encode()) for each in cookies]
