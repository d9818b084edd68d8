"""The deadlines of one HTTP request, whichever version of HTTP brought it.

deadline   set while                              when due
body       the rest of a body is awaited          408, or cut
rate       the same; not moved by what comes      408, or cut, if that was too little
notice     a request is being answered            name it in the log
response   a request is being answered            503, or cut
"""

from __future__ import annotations

from typing import Final

from channels.exceptions import RemoteProtocolError
from channels.kit.types import Address, Scope
from channels.server.application import describe, log_unanswered
from channels.server.cuts import cut_off
from channels.server.deadlines import Deadlines
from channels.server.options import ServerOptions

#: What is due -> the reason in the metrics, and what took too long.
LATE: Final = {
    "response": ("http_timeout", "the application's answer"),
    "header": ("slow_header", "the request's header"),
    "body": ("slow_body", "the request's body"),
    "rate": ("slow_body", "the request's body"),
}


class RequestDeadlines:
    """Sets deadlines among those of its owner, who calls `is_late` with each that is due."""

    __slots__ = ("_deadlines", "_limits", "_received_before", "_timeouts", "received")

    def __init__(self, options: ServerOptions, deadlines: Deadlines) -> None:
        self._limits = options.limits
        self._timeouts = options.timeouts
        self._deadlines = deadlines
        #: Bytes that have come; whoever reads adds to it.
        self.received = 0
        #: What had come when the present span of the least rate began.
        self._received_before = 0

    def begin(self) -> None:
        """A request is being answered; every other deadline is forgotten."""
        timeouts = self._timeouts
        self._deadlines.only("notice", timeouts.unanswered_notice)
        if timeouts.http_timeout is not None:
            self._deadlines.set("response", timeouts.http_timeout)

    def await_body(self) -> None:
        """More of the body is awaited from the client."""
        self._deadlines.set("body", self._timeouts.body_timeout)
        if "rate" not in self._deadlines:
            self._watch_rate()

    def end_body(self) -> None:
        """The body is complete, or it is the application that is awaited."""
        self._deadlines.clear("body", "rate")

    def end(self) -> None:
        """The response is complete."""
        self._deadlines.clear("response", "notice")

    def is_late(self, name: str, scope: Scope | None, *, has_answer: bool) -> bool:
        """True if the deadline that is due ends the request; the log may be all there is to it."""
        if name == "notice":
            seconds = self._timeouts.unanswered_notice
            if scope is not None and seconds and not has_answer:
                log_unanswered(scope, seconds)
            return False
        if name == "rate" and not self._is_too_slow():
            self._watch_rate()
            return False
        return True

    def error(self, name: str, scope: Scope | None, client: Address | None) -> RemoteProtocolError:
        """Count and log what is late; the error to answer it with."""
        reason, what = LATE[name]
        seconds = {
            "http_timeout": self._timeouts.http_timeout,
            "slow_header": self._timeouts.header_timeout,
            "slow_body": self._timeouts.body_timeout,
        }[reason]
        target = "" if scope is None else f" ({describe(scope)})"
        cut_off(reason, client, f"{what} took too long: {seconds:g} s{target}")
        status = 503 if reason == "http_timeout" else 408
        return RemoteProtocolError(
            f"{what.capitalize()} took too long: {seconds:g} s.", status=status
        )

    def _watch_rate(self) -> None:
        """Begin a span over which the body's rate is averaged."""
        self._received_before = self.received
        self._deadlines.set("rate", self._timeouts.body_timeout)

    def _is_too_slow(self) -> bool:
        least = self._limits.min_body_rate * (self._timeouts.body_timeout or 0)
        return self.received - self._received_before < least
