"""A consumer for HTTP requests: whole answers, streams, and answers that come later.

The consumer ends once its response is complete.  If `handle()` returns before that, it stays: a
channel message may bring the answer (long-polling), until the client goes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from channels.consumer import AsyncConsumer
from channels.consumer.line import name_of
from channels.exceptions import ClientDisconnected, StopConsumer
from channels.kit.types import HeaderPairs, Message, Scope

logger = logging.getLogger("django.channels")

#: Header fields as users give them: pairs of bytes, or a dict of them.
GivenHeaders = HeaderPairs | Mapping[bytes, bytes]


class AsyncHttpConsumer(AsyncConsumer):
    """Handles one HTTP request.

    When the client goes while `handle()` runs, it is cancelled: at once if it is streaming, for
    there is nobody left to send to, else after `close_timeout`, so that work which the client only
    began may end.  `disconnect()` is called once: after the response, an error, or the client's
    going.
    """

    #: True for a class that answers after `handle()` even without a channel layer.
    _may_answer_later = False
    _response_has_begun = False
    _response_is_complete = False
    _nothing_follows = False
    _has_left = False
    _body_bytes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        scope: Scope | None = next(iter(args), kwargs.get("scope"))
        super().__init__(scope if isinstance(scope, dict) else None)
        #: The request's body, as it arrived.
        self.body: list[bytes] = []

    @property
    def max_body_bytes(self) -> int | None:
        """Most bytes of a request's body; more are answered with 413.  None: no bound.

        Django's DATA_UPLOAD_MAX_MEMORY_SIZE; a subclass may set a number in its place.
        """
        found: int | None = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        return found

    async def send_headers(self, *, status: int = 200, headers: GivenHeaders | None = None) -> None:
        """Begin the response; the server may hold it until the first of the body."""
        self._response_has_begun = True
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        await self.send({"type": "http.response.start", "status": status, "headers": list(pairs)})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a piece of the body, the last one unless `more_body`.

        Raises:
            AssertionError: If `body` is not bytes.
            ClientDisconnected: If the server says so; left uncaught, it ends the consumer in order.
        """
        if not isinstance(body, bytes):
            raise AssertionError("Body is not bytes")
        if more_body:
            # From here on the client waits for more, so that its going is the end.
            self._line.hurry()
        else:
            self._response_is_complete = True
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """Send a whole response; `headers` as for `send_headers`."""
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """Override: answer the request, or leave that to the handler of a later message."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `async def handle(self, body)` to answer requests with."
        )

    async def disconnect(self) -> None:
        """Override: the response is complete, or the client has gone."""

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message, and end if the response is complete after it."""
        try:
            await super().dispatch(message)
        except ClientDisconnected:
            # The client has gone, or has its whole response already: nothing is left to be done.
            await self._part()
            raise StopConsumer from None
        except StopConsumer:
            await self._complete()
            await self._part()
            raise
        except Exception:
            await self._part()
            raise
        if self._response_is_complete or self._nothing_follows:
            await self._part()
            raise StopConsumer

    async def http_request(self, message: Message) -> None:
        """Collect the body, and handle the request once it is whole."""
        if "body" in message:
            self.body.append(message["body"])
            self._body_bytes += len(message["body"])
            if self.max_body_bytes is not None and self._body_bytes > self.max_body_bytes:
                await self._refuse_body(self.max_body_bytes)
                return
        if message.get("more_body"):
            return
        await self.handle(b"".join(self.body))
        if self.channel_layer is None and not self._may_answer_later:
            # Nothing can bring a later answer; the server tells the client if there was none.
            self._nothing_follows = True

    async def http_disconnect(self, message: Message) -> None:
        """The client has gone."""
        raise StopConsumer

    async def _refuse_body(self, most: int) -> None:
        self.body.clear()
        logger.warning(
            "%s is answered with 413: its body is larger than %s bytes.", name_of(self.scope), most
        )
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        # Not by verbs that a subclass may have given another meaning: it may send events by them.
        await AsyncHttpConsumer.send_headers(self, status=413, headers=headers)
        await AsyncHttpConsumer.send_body(self, b"Content Too Large")

    async def _complete(self) -> None:
        """End a response that a handler has left for good, so that its client can tell its end."""
        if self._response_has_begun and not (self._response_is_complete or self._line.mailbox.gone):
            with contextlib.suppress(ClientDisconnected):
                await self.send_body(b"")

    async def _part(self) -> None:
        if not self._has_left:
            self._has_left = True
            await self.disconnect()
