"""A case: what a client sends, and what the server must say to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.wire.http2 import frames
from tests.wire.http2.frames import Frame

NO_ERROR = frames.NO_ERROR
PROTOCOL = frames.PROTOCOL_ERROR
FLOW = frames.FLOW_CONTROL_ERROR
CLOSED = frames.STREAM_CLOSED
SIZE = frames.FRAME_SIZE_ERROR
REFUSED = frames.REFUSED_STREAM
COMPRESSION = frames.COMPRESSION_ERROR

#: The last thing that a case sends: the server has read all before it once it answers.
MARK = b"the mark"
MARK_PING = frames.frame(frames.PING, 0, 0, MARK)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server has said."""

    frames: Sequence[Frame]
    is_closed: bool

    def of(self, kind: int, stream: int | None = None) -> list[Frame]:
        return [
            each
            for each in self.frames
            if each.kind == kind and (stream is None or each.stream == stream)
        ]

    @property
    def answered_mark(self) -> bool:
        return any(each.flags and each.payload == MARK for each in self.of(frames.PING))

    def status(self, stream: int = 1) -> int | None:
        """Of a whole response."""
        heads = self.of(frames.HEADERS, stream)
        is_whole = any(each.ends_stream for each in self.frames if each.stream == stream)
        return heads[0].status if heads and is_whole else None


class Expectation:
    """What must be heard."""

    def is_over(self, heard: Heard) -> bool:
        """True once nothing more need be awaited."""
        raise NotImplementedError

    def holds(self, heard: Heard) -> bool:
        """True if it was heard."""
        return self.is_over(heard)


@dataclass(frozen=True, slots=True)
class ConnectionError(Expectation):  # noqa: A001 - the RFC's word
    """A GOAWAY with one of these codes, and the end of the connection."""

    codes: tuple[int, ...]

    def is_over(self, heard: Heard) -> bool:
        return heard.is_closed

    def holds(self, heard: Heard) -> bool:
        goaways = heard.of(frames.GOAWAY)
        return heard.is_closed and bool(goaways) and goaways[-1].code in self.codes


@dataclass(frozen=True, slots=True)
class StreamError(Expectation):
    """A RST_STREAM with one of these codes; the RFC allows to end the connection in its place."""

    codes: tuple[int, ...]
    stream: int = 1

    def is_over(self, heard: Heard) -> bool:
        return heard.is_closed or bool(heard.of(frames.RST_STREAM, self.stream))

    def holds(self, heard: Heard) -> bool:
        said = heard.of(frames.RST_STREAM, self.stream) + heard.of(frames.GOAWAY)
        return any(each.code in self.codes for each in said)


@dataclass(frozen=True, slots=True)
class Answer(Expectation):
    """A whole response, and a connection that goes on."""

    statuses: tuple[int, ...] = (200,)
    stream: int = 1

    def is_over(self, heard: Heard) -> bool:
        return heard.is_closed or (heard.answered_mark and heard.status(self.stream) is not None)

    def holds(self, heard: Heard) -> bool:
        return heard.status(self.stream) in self.statuses and not heard.of(frames.GOAWAY)


@dataclass(frozen=True, slots=True)
class Ignored(Expectation):
    """Nothing, and a connection that goes on."""

    def is_over(self, heard: Heard) -> bool:
        return heard.is_closed or heard.answered_mark

    def holds(self, heard: Heard) -> bool:
        return heard.answered_mark and not heard.of(frames.GOAWAY)


@dataclass(frozen=True, slots=True)
class Says(Expectation):
    """A frame of this kind with these flags and payload, so many times."""

    kind: int
    flags: int = 0
    payload: bytes | None = None
    times: int = 1

    def is_over(self, heard: Heard) -> bool:
        return heard.is_closed or heard.answered_mark

    def holds(self, heard: Heard) -> bool:
        said = [
            each
            for each in heard.of(self.kind)
            if each.flags == self.flags and (self.payload is None or each.payload == self.payload)
        ]
        return len(said) == self.times


@dataclass(frozen=True, slots=True)
class Sends(Expectation):
    """DATA frames on stream 1 of these sizes, and no more."""

    sizes: tuple[int, ...]

    def is_over(self, heard: Heard) -> bool:
        total = sum(len(each.payload) for each in heard.of(frames.DATA, 1))
        return heard.is_closed or (heard.answered_mark and total >= sum(self.sizes))

    def holds(self, heard: Heard) -> bool:
        return tuple(len(each.payload) for each in heard.of(frames.DATA, 1)) == self.sizes


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement.

    Attributes:
        id: Its section, and a number within that.
        sends: What the client sends after preface and settings; a later part goes out once the
            server has answered a PING behind the part before it.
        begins: What the client sends at first, in place of preface and settings.
    """

    id: str
    title: str
    sends: tuple[bytes, ...]
    expects: Expectation
    begins: bytes = frames.PREFACE + frames.settings()


def connection_error(*codes: int) -> ConnectionError:
    return ConnectionError(codes)


def stream_error(*codes: int, stream: int = 1) -> StreamError:
    return StreamError(codes, stream)


def numbered(
    section: str, *cases: tuple[str, bytes | tuple[bytes, ...], Expectation]
) -> list[Case]:
    """The cases of one section."""
    return [
        Case(f"{section}/{number}", title, sends if isinstance(sends, tuple) else (sends,), expects)
        for number, (title, sends, expects) in enumerate(cases, 1)
    ]
