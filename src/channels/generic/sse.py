"""Server-sent events: a response that stays open and carries events to an EventSource.

The rules are those of the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": an
event is a block of `field: value` lines that ends with an empty line, a line that begins with a
colon is a comment, and data of several lines is sent as several `data` fields.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final

from channels.exceptions import ClientDisconnected
from channels.generic.http import AsyncHttpConsumer
from channels.generic.membership import Membership
from channels.kit.types import Headers

#: What the standard and the proxies between need: the type, no caching, and no collecting of pieces
#: ("X-Accel-Buffering" is nginx's word for that, "no-transform" keeps others from compressing).
STREAM_HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

COMMENT: Final = b":\n\n"


def encode_event(
    data: str | None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> bytes:
    """The bytes of one event.

    Args:
        data: Any lines; None sends the other fields alone, which no listener sees.
        retry: Milliseconds after which the client connects again.

    Raises:
        ValueError: If `event` or `id` has a line break, which would begin another field, or `id` a
            NUL, for which the standard ignores the field.
    """
    lines = []
    for name, value in (("event", event), ("id", id)):
        if value is None:
            continue
        if any(mark in value for mark in "\r\n\0"):
            raise ValueError(f"The {name} of an event is one line without NUL: found {value!r}.")
        lines.append(f"{name}: {value}")
    if retry is not None:
        lines.append(f"retry: {int(retry)}")
    if data is not None:
        # The standard's line ends, and only those: str.splitlines knows more.
        text = data.replace("\r\n", "\n").replace("\r", "\n")
        lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


class AsyncEventStreamConsumer(Membership, AsyncHttpConsumer):
    """Keeps a response open and sends events on it.

    The stream is opened before `connect()` is called, and stays open until the client goes or
    `close()` is called.  Channel messages are handled meanwhile, `groups` included, so `connect()`
    should return.
    """

    #: Seconds of silence after which a comment is sent, so that no proxy takes the stream for
    #: dead.  None: never.
    keep_alive: float | None = 15.0
    #: Milliseconds after which the client is to connect again when the stream breaks; None leaves
    #: that to the client (3 seconds in most).
    retry: int | None = None

    _may_answer_later = True
    _said = 0

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that this client saw before it lost its former stream."""
        for name, value in self.scope.get("headers", []):
            if bytes(name).lower() == b"last-event-id":
                return bytes(value).decode("utf-8", "replace")
        return None

    async def handle(self, body: bytes) -> None:
        """Open the stream."""
        # First the groups: what is sent while connect() looks up the past is not missed.
        for group in self._groups_to_join():
            await self.channel_layer.group_add(group, self.channel_name)
        await self.open()
        await self.connect()

    async def open(self) -> None:
        """Send the head of the response; override to answer some clients otherwise."""
        await self.send_headers(headers=STREAM_HEADERS)
        opening = encode_event(None, retry=self.retry) if self.retry is not None else COMMENT
        # The first piece at once: until it comes, the client's `open` event does not.
        await self.send_body(opening, more_body=True)
        if self.keep_alive is not None:
            self._line.spawn(self._keep_alive(self.keep_alive), "keep-alive of an event stream")

    async def connect(self) -> None:
        """Override: the stream is open; send what the client missed since `last_event_id`."""

    async def send_event(
        self,
        data: Any = "",
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's name
        retry: int | None = None,
    ) -> None:
        """Send one event.

        Args:
            data: A string as it is; anything else as JSON.
            event: The name that the client listens for, "message" if None.
            id: What the client gives back as `last_event_id` after it has reconnected.
            retry: Milliseconds after which the client connects again from now on.

        Raises:
            ValueError: If `event` or `id` is not one line.
        """
        text = data if data is None or isinstance(data, str) else json.dumps(data)
        encoded = encode_event(text, event=event, id=id, retry=retry)
        await self.send_body(encoded, more_body=True)

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a piece of the stream."""
        self._said += 1
        await super().send_body(body, more_body=more_body)

    async def close(self) -> None:
        """End the stream; the client connects again, unless it is answered with 204 then."""
        await self.send_body(b"")

    async def _keep_alive(self, seconds: float) -> None:
        with contextlib.suppress(ClientDisconnected):
            while not self._response_is_complete:
                said = self._said
                await asyncio.sleep(seconds)
                if said == self._said:
                    await self.send_body(COMMENT, more_body=True)
