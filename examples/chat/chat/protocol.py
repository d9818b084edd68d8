"""The messages between browser and server: JSON objects with a "type".

From the browser:
    {"type": "post", "key": UUID, "handle": str, "text": str}   a member's handle is ignored
    {"type": "name", "handle": str}                             sets a guest's name
    {"type": "older", "before": int}                            asks for messages before this id
    {"type": "ping"}                                            is answered by "pong"

From the server:
    {"type": "welcome", "user": str | null, "complete": bool, "messages": [MESSAGE, ...],
     "kept": [int, ...]}                                        ids shown and not deleted
    {"type": "message", "message": MESSAGE}                     a new message, or an edited one
    {"type": "deleted", "ids": [int, ...]}
    {"type": "older", "messages": [MESSAGE, ...], "more": bool}
    {"type": "named", "handle": str}
    {"type": "refused", "key": str | null, "code": str, "text": str, "retry_after": float | null}
    {"type": "pong"}

MESSAGE: id, key, handle, member (bool), hue, text, time (ISO 8601).
Lengths are counted in code points, in the browser too; an emoji may have several.
"""

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chat import names
from chat.models import Message

MAX_TEXT_LENGTH = 2000
#: Enough for the longest text with each character escaped as two surrogates (12 characters).
MAX_FRAME_LENGTH = 32_768

# Close codes from 4400 to 4499 tell the page not to reconnect.
NO_SUCH_ROOM = 4404
SIGNED_OUT = 4401
MISBEHAVED = 1008


class Refused(Exception):
    """A request was refused; the browser gets the code and the text."""

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
class Name:
    handle: str


@dataclass(frozen=True)
class Older:
    before: int


@dataclass(frozen=True)
class Post:
    key: uuid.UUID
    #: As it was sent; ignored for members.
    handle: str
    text: str


Request = Ping | Name | Older | Post


def parse(frame: str | None) -> Request:
    """Parse a text frame; None stands for a binary one.

    Raises:
        Refused: If it is not a valid request.
    """
    if frame is None or len(frame) > MAX_FRAME_LENGTH:
        raise Refused("bad_request", f"Expected a text of at most {MAX_FRAME_LENGTH} characters.")
    try:
        fields = json.loads(frame)
    except (ValueError, RecursionError):
        raise Refused("bad_request", "Expected a JSON text.") from None
    kind = fields.get("type") if isinstance(fields, dict) else None
    # Not by `in`: "type" may be a list, which is not hashable.
    for name, parser in (("post", _post), ("ping", _ping), ("name", _name), ("older", _older)):
        if kind == name:
            return parser(fields)
    raise Refused("bad_request", 'Expected a "type" of "post", "name", "older" or "ping".')


def _ping(fields: dict[str, Any]) -> Ping:
    return Ping()


def _name(fields: dict[str, Any]) -> Name:
    if not isinstance(fields.get("handle"), str):
        raise Refused("bad_request", "Expected a handle.")
    return Name(fields["handle"])


def _older(fields: dict[str, Any]) -> Older:
    before = fields.get("before")
    if type(before) is not int or not 0 < before < 2**63:
        raise Refused("bad_request", "Expected a message's id.")
    return Older(before)


def _post(fields: dict[str, Any]) -> Post:
    try:
        key = uuid.UUID(fields.get("key"))
    except (ValueError, TypeError, AttributeError):
        raise Refused("bad_request", "Expected a UUID as the post's key.") from None
    handle, text = fields.get("handle") or "", fields.get("text")
    if not isinstance(text, str) or not isinstance(handle, str):
        raise Refused("bad_request", "Expected a text and a handle.", str(key))
    # JSON allows lone surrogates, databases do not; PostgreSQL refuses NUL.
    text = re.sub("[\x00\ud800-\udfff]", "", text).strip()
    if all(names.is_unseen(character) or character.isspace() for character in text):
        raise Refused("empty", "There is nothing in the message.", str(key))
    if len(text) > MAX_TEXT_LENGTH:
        raise Refused(
            "too_long",
            f"The message has {len(text)} characters; at most {MAX_TEXT_LENGTH} are allowed.",
            str(key),
        )
    return Post(key, handle, text)


def clean_handle(handle: str, key: str | None = None) -> str:
    try:
        return names.clean(handle)
    except names.BadName as error:
        raise Refused("bad_handle", str(error), key) from None


def as_fields(message: Message) -> dict[str, Any]:
    return {
        "id": message.pk,
        "key": str(message.key),
        "handle": message.handle,
        "member": message.is_member,
        "hue": message.hue,
        "text": message.text,
        "time": message.time.isoformat(),
    }


def message_event(message: Message) -> dict[str, Any]:
    return {"type": "message", "message": as_fields(message)}


def deleted_event(ids: list[int]) -> dict[str, Any]:
    return {"type": "deleted", "ids": ids}


def older_event(messages: Iterable[Message], *, has_more: bool) -> dict[str, Any]:
    return {
        "type": "older",
        "messages": [as_fields(message) for message in messages],
        "more": has_more,
    }


def welcome_event(
    user: str | None, messages: Iterable[Message], *, is_complete: bool, kept: list[int]
) -> dict[str, Any]:
    return {
        "type": "welcome",
        "user": user,
        "complete": is_complete,
        "messages": [as_fields(message) for message in messages],
        "kept": kept,
    }
