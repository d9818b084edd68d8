"""What browser and server say to each other over the WebSocket: JSON texts with a "type".

From the browser:
    {"type": "post", "key": UUID, "handle": str, "text": str}   a signed-in user's handle is ignored
    {"type": "ping"}                                            is anyone there?

From the server:
    {"type": "welcome", "user": str | null, "complete": bool, "messages": [MESSAGE, ...]}
    {"type": "message", "message": MESSAGE}    MESSAGE: id, key, handle, hue, text, time (ISO 8601)
    {"type": "refused", "key": str | null, "code": str, "text": str, "retry_after": float | null}
    {"type": "pong"}
"""

import json
import re
import unicodedata
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chat.models import Message

MOST_TEXT = 2000
MOST_HANDLE = 32
#: A post of the longest text, every character escaped (6 bytes), fits.
MOST_FRAME = 16_384

# Close codes of our own: 4400 to 4499 tell the browser not to try again as it did.
NO_SUCH_ROOM = 4404
SIGNED_OUT = 4401
MISBEHAVED = 1008

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


class Refused(Exception):
    """A request that is not carried out; the browser is told why."""

    def __init__(
        self, code: str, text: str, key: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.key = key
        self.retry_after = retry_after

    def as_event(self) -> dict[str, Any]:
        return {
            "type": "refused",
            "key": self.key,
            "code": self.code,
            "text": self.text,
            "retry_after": self.retry_after,
        }


@dataclass(frozen=True)
class Ping:
    pass


@dataclass(frozen=True)
class Post:
    key: uuid.UUID
    handle: str
    text: str


def parse(frame: str | None) -> Ping | Post:
    """A frame's request.

    Raises:
        Refused: If it is none, or one that may not be carried out by anyone.
    """
    if frame is None or len(frame) > MOST_FRAME:
        raise Refused("bad_request", f"Expected a text of at most {MOST_FRAME} characters.")
    try:
        fields = json.loads(frame)
    except (ValueError, RecursionError):
        raise Refused("bad_request", "Expected a JSON text.") from None
    if not isinstance(fields, dict) or fields.get("type") not in ("ping", "post"):
        raise Refused("bad_request", 'Expected an object of type "post" or "ping".')
    return Ping() if fields["type"] == "ping" else _parse_post(fields)


def _parse_post(fields: dict[str, Any]) -> Post:
    try:
        key = uuid.UUID(fields.get("key"))
    except (ValueError, TypeError, AttributeError):
        raise Refused("bad_request", "Expected a UUID as the post's key.") from None
    handle, text = fields.get("handle") or "", fields.get("text")
    if not isinstance(text, str) or not isinstance(handle, str):
        raise Refused("bad_request", "Expected a text and a handle.", str(key))
    # Lone surrogates are legal JSON and no database's text; NUL is refused by PostgreSQL.
    text = re.sub("[\x00\ud800-\udfff]", "", text).strip()
    if not text:
        raise Refused("empty", "There is nothing in the message.", str(key))
    if len(text) > MOST_TEXT:
        raise Refused(
            "too_long",
            f"The message has {len(text)} characters; {MOST_TEXT} is the most.",
            str(key),
        )
    return Post(key, clean_handle(handle), text)


def clean_handle(handle: str) -> str:
    """A handle without characters that cannot be seen, which would let one pass for another."""
    seen = (character for character in handle if unicodedata.category(character) not in _INVISIBLE)
    return " ".join("".join(seen).split())


def check_handle(handle: str, key: str | None = None) -> None:
    if not handle:
        raise Refused("bad_handle", "Choose a name before you post.", key)
    if len(handle) > MOST_HANDLE:
        raise Refused("bad_handle", f"A name has at most {MOST_HANDLE} characters.", key)


def as_fields(message: Message) -> dict[str, Any]:
    return {
        "id": message.pk,
        "key": str(message.key),
        "handle": message.handle,
        "hue": message.hue,
        "text": message.text,
        "time": message.time.isoformat(),
    }


def message_event(message: Message) -> dict[str, Any]:
    return {"type": "message", "message": as_fields(message)}


def welcome_event(
    user: str | None, messages: Iterable[Message], *, is_complete: bool
) -> dict[str, Any]:
    return {
        "type": "welcome",
        "user": user,
        "complete": is_complete,
        "messages": [as_fields(message) for message in messages],
    }
