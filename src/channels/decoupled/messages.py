"""What edge and worker say to each other: every message, who sends it, and what follows.

Three messages are sent through the channel layer as they are:

    offer   edge -> the queue of offers.  A connection wants a worker.  One worker takes it.
    batch   edge <-> worker, to the other's inbox.  Some messages of the table below; an empty one
            says that the sender is alive.  `inbox_carrier` numbers and repeats them.
    reset   edge <-> worker.  The receiver's last batch belongs to a session that is over here.

On one machine the worker connects to the socket that the offer names, in place of batches:

    hello    worker -> edge.  With the token of the offer, which shows that it reads the same layer.
    welcome  edge -> worker.  From here on each side writes messages of the table below, one after
             the other; ALIVE among them says that the sender is.

All others speak of one connection, by the `id` that the edge gave it.  Its
`generation` is one more with each offer after a worker has had it: a message with an older one is
of a former owner, and is dropped.

    edge                                   worker
      | -- offer (queue) ------------------> |
      | <------------------------- claim --- |
      | -- open (or void) ----------------> |   the application is called
      | -- event (websocket.connect) ------> |
      | <----- send (websocket.accept) ----- |
      | -- taken --------------------------> |   `send` may go on
      | -- event ... ----------------------> |
      | <--------------------------- ack --- |   its handler has returned
      | <----------------------- release --- |   the worker stops; state goes back to the edge
      | -- offer (generation + 1) ...        |

Anything else is counted, logged and dropped: by `MalformedMessage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from channels.exceptions import MalformedMessage
from channels.kit.limits import KIB, MIB
from channels.kit.names import MAX_NAME_LENGTH
from channels.kit.printable import printable
from channels.kit.types import Message

#: Of this protocol.  A release that adds fields or messages keeps it: unknown fields are ignored
#: and unknown messages dropped.  One that changes their meaning takes the next number, and goes on
#: reading the one before.
VERSION: Final = 1
READABLE_VERSIONS: Final = frozenset({VERSION})

Side = Literal["edge", "worker"]

_LARGEST: Final = 2**63 - 1

#: What becomes of a connection whose worker dies: it is closed, or another worker has it, with or
#: without the events that were not acknowledged.
CRASH_RULES: Final = ("close", "redeliver", "drop")

#: How many handled events a worker may acknowledge together; an edge must let out twice as many.
ACK_EVENTS: Final = 4
ACK_BYTES: Final = 32 * KIB

#: On a socket, in the place of a message.
ALIVE: Final = None

#: Messages that one batch may carry, and connections that one roll may name.
BATCH_MESSAGES: Final = 1000
ROLL_IDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """What a field of a message may be.

    Attributes:
        most: The largest number, or the greatest length.
    """

    kind: Any
    least: int = 0
    most: int = _LARGEST
    is_optional: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value; empty if nothing is."""
        if value is None and self.is_optional:
            return ""
        if type(value) is not self.kind:
            return f"expected {self.kind.__name__}, found {type(value).__name__}"
        if self.kind is bool or self.kind is dict:
            return ""
        size: int = value if self.kind is int else len(value)
        if not self.least <= size <= self.most:
            what = "number" if self.kind is int else "length"
            return f"expected a {what} from {self.least} to {self.most}, found {size}"
        return ""


@dataclass(frozen=True, slots=True)
class MessageKind:
    """One message.

    Attributes:
        sender: Who may say it; None: both.
        fields: Its fields, each of which must be there unless it is optional.
        follows: What the receiver does.
        events: Types of the ASGI event that its field `event` may carry.
    """

    sender: Side | None
    fields: Mapping[str, Field]
    follows: str
    events: frozenset[str] = frozenset()
    #: The fields as they are compared: name, type, least, most, rule.
    rows: tuple[tuple[str, Any, int, int, Field], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = [
            (name, each.kind, each.least, each.most, each) for name, each in self.fields.items()
        ]
        object.__setattr__(self, "rows", tuple(rows))


_NAME: Final = Field(str, 1, MAX_NAME_LENGTH)
_CONNECTION: Final = {"id": Field(int, 1), "generation": Field(int, 1)}
_SEQUENCE: Final = Field(int, 0)
_SESSION: Final = Field(bytes, 8, 8)
_TOKEN: Final = Field(bytes, 8, 64)
#: Larger ones are refused where they are made, by `max_state_bytes`.
_STATE: Final = Field(bytes, 0, MIB, is_optional=True)

#: ASGI's events of a client, and what an application answers to them.
CLIENT_EVENTS: Final = frozenset(
    {
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
        "http.request",
        "http.disconnect",
    }
)
APPLICATION_EVENTS: Final = frozenset(
    {
        "websocket.accept",
        "websocket.send",
        "websocket.close",
        "websocket.http.response.start",
        "websocket.http.response.body",
        "http.response.start",
        "http.response.body",
    }
)

#: Fields of these events whose length is asked for.
_PAYLOADS: Final = {
    "text": Field(str, is_optional=True),
    "bytes": Field(bytes, is_optional=True),
    "body": Field(bytes, is_optional=True),
}

#: What goes through the channel layer, and what opens a socket.
ENVELOPES: Final[Mapping[str, MessageKind]] = {
    "decoupled.offer": MessageKind(
        "edge",
        {
            "edge": _NAME,
            **_CONNECTION,
            "address": Field(str, 1, MAX_NAME_LENGTH, is_optional=True),
            "token": Field(bytes, 8, 64, is_optional=True),
        },
        "A worker with a free place sends `claim` to the edge: over the socket at `address`, if it "
        "can be reached.",
    ),
    "decoupled.batch": MessageKind(
        None,
        {
            "sender": _NAME,
            "session": _SESSION,
            "to": Field(bytes, 8, 8, is_optional=True),
            "number": Field(int, 0),
            "seen": Field(int, 0),
            "messages": Field(list, 0, BATCH_MESSAGES),
        },
        "Each message is handled in turn, unless the batch came before; `seen` ends the "
        "repetition of batches up to that number.",
    ),
    "decoupled.reset": MessageKind(
        None,
        {"sender": _NAME, "session": _SESSION},
        "The sender counts as dead, if `session` is the present one.",
    ),
    "decoupled.hello": MessageKind(
        "worker",
        {"sender": _NAME, "token": _TOKEN},
        "`welcome`, if the token is that of the edge's offers; else the socket is closed.",
    ),
    "decoupled.welcome": MessageKind("edge", {}, "Messages follow, both ways."),
}

#: What a batch carries.
MESSAGES: Final[Mapping[str, MessageKind]] = {
    "claim": MessageKind(
        "worker",
        _CONNECTION,
        "`open` to the first that claims this generation, `void` to others.",
    ),
    "open": MessageKind(
        "edge",
        {
            **_CONNECTION,
            "scope": Field(dict),
            "socket": Field(str, 0, MAX_NAME_LENGTH),
            "start": _SEQUENCE,
            "is_accepted": Field(bool),
            "state": _STATE,
            "credit": Field(int, 1),
            "credit_bytes": Field(int, 1),
        },
        "The worker calls its application; `event`s follow from the sequence number start + 1.  "
        "With `is_accepted` the consumer takes `state` and goes on.  `send`s of more events or "
        "bytes than the credit wait for `taken`.",
    ),
    "void": MessageKind(
        "edge",
        _CONNECTION,
        "The connection is not, or no longer, the worker's: it frees the place, and its consumer "
        "is told `disconnect` with 1006.",
    ),
    "event": MessageKind(
        "edge",
        {**_CONNECTION, "sequence": _SEQUENCE, "event": Field(dict)},
        "The application handles it; then `ack`, at the latest after ACK_EVENTS or ACK_BYTES.",
        CLIENT_EVENTS,
    ),
    "taken": MessageKind(
        "edge",
        {**_CONNECTION, "count": _SEQUENCE},
        "So many `send`s of this generation are with the client's socket: the application may "
        "send more.",
    ),
    "ack": MessageKind(
        "worker",
        {
            **_CONNECTION,
            "sequence": _SEQUENCE,
            "state": _STATE,
            "on_crash": Field(str, 0, 20, is_optional=True),
        },
        "The edge forgets events up to this number and keeps `state`, unless it is None, for the "
        "worker's death.",
    ),
    "send": MessageKind(
        "worker",
        {**_CONNECTION, "event": Field(dict)},
        "The edge sends it to the client, in order.",
        APPLICATION_EVENTS,
    ),
    "release": MessageKind(
        "worker",
        {**_CONNECTION, "sequence": _SEQUENCE, "state": _STATE},
        "The edge offers the connection with the next generation, and sends its new owner the "
        "events after this number.",
    ),
    "end": MessageKind(
        "worker",
        {**_CONNECTION, "is_failed": Field(bool)},
        "The application has ended: the edge closes the connection if it is open.",
    ),
    "roll": MessageKind(
        "worker",
        {"connections": Field(list, 0, ROLL_IDS), "is_last": Field(bool)},
        "`void` for each pair of id and generation that the edge does not know as the worker's; "
        "connections of its that two whole rolls have not named count as lost.",
    ),
}

#: The largest a message of the table may be unless an option says otherwise, once encoded.
MESSAGE_BYTES: Final = 2 * MIB
#: What a message counts for beside its payload.
OVERHEAD_BYTES: Final = KIB // 8


def check_envelope(raw: Any) -> Message:
    """What came through the channel layer, or opens a socket.

    Raises:
        MalformedMessage: If it is none of `ENVELOPES`, or of a version that cannot be read.
    """
    message = _checked(raw, "type", ENVELOPES)
    version = message.get("version")
    if type(version) is not int or version not in READABLE_VERSIONS:
        readable = ", ".join(map(str, sorted(READABLE_VERSIONS)))
        raise MalformedMessage(
            f"{message['type']} of version {printable(repr(version), 40)}: this "
            f"release reads {readable}. Update the edges and workers that are behind."
        )
    return message


def check_message(raw: Any, sender: Side) -> Message:
    """A message of a batch.

    Raises:
        MalformedMessage: If it is none of `MESSAGES`, or not one of this sender's.
    """
    message = _checked(raw, "kind", MESSAGES)
    name = message["kind"]
    kind = MESSAGES[name]
    if kind.sender != sender:
        raise MalformedMessage(f"'{name}' from the {sender}: the other side sends it.")
    if kind.events:
        _check_event(name, message["event"], kind.events)
        return message
    if name == "roll":
        _check_pairs(message["connections"])
    rule = message.get("on_crash") if name == "ack" else None
    if rule is not None and rule not in CRASH_RULES:
        raise MalformedMessage(
            f"on_crash is {printable(rule)!r}: expected one of {', '.join(CRASH_RULES)}."
        )
    return message


def _checked(raw: Any, key: str, table: Mapping[str, MessageKind]) -> Message:
    if type(raw) is not dict:
        raise MalformedMessage(f"A message is a dict: found {type(raw).__name__}.")
    name = raw.get(key)
    kind = table.get(name) if isinstance(name, str) else None
    if kind is None:
        raise MalformedMessage(
            f"{key} is {printable(repr(name), 60)}: expected one of {', '.join(table)}."
        )
    for name_of, expected, least, most, rule in kind.rows:
        value: Any = raw.get(name_of)
        # What nearly all fields are, without a call.
        if type(value) is expected and (
            expected is dict or (expected is int and least <= value <= most)
        ):
            continue
        if problem := rule.problem(value):
            raise MalformedMessage(f"'{name}': {name_of}: {problem}.")
    return raw


def _check_event(kind: str, event: Message, allowed: frozenset[str]) -> None:
    found = event.get("type")
    if not isinstance(found, str) or found not in allowed:
        raise MalformedMessage(
            f"'{kind}' with an event of type {printable(repr(found), 60)}: expected one of "
            f"{', '.join(sorted(allowed))}."
        )
    for name, rule in _PAYLOADS.items():
        value = event.get(name)
        if value is not None and type(value) is not rule.kind:
            raise MalformedMessage(f"'{kind}' with '{found}': {name}: {rule.problem(value)}.")


def _check_pairs(pairs: list[Any]) -> None:
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2 or not all(type(part) is int for part in pair):
            raise MalformedMessage(
                f"'roll' names {printable(repr(pair), 60)}: expected a list of id and generation."
            )


def size_of(event: Message) -> int:
    """What an event counts for in the bounds on bytes: its payload, and something for the rest."""
    size = OVERHEAD_BYTES
    text = event.get("text")
    if text:
        # Most text is ASCII; a character of other text may have four bytes.
        size += len(text) if text.isascii() else 4 * len(text)
    data = event.get("bytes") or event.get("body")
    return size + len(data) if data else size
