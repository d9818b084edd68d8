"""Probes: paths at which an orchestrator asks whether a process lives, and whether it is ready.

    asked at       200                                    503
    health_path    as long as the event loop turns        never
    ready_path     once requests are welcome              while the server drains, or a condition
                                                          of the process is not met

The server answers by itself, before the application, and tells neither the access log nor the
counts.  Over `max_connections` a few more connections are read, so that a full server is not taken
for a dead one; anything but a probe is refused there with 503.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from channels.kit.types import Application, Receive, Scope, Send
from channels.server.counts import counts
from channels.server.options import ServerOptions

#: Connections that a full server reads, to see whether they are probes.
PROBE_CONNECTIONS: Final = 10

#: Gives the reasons for which this process wants no requests, in words; none if it is ready.
Condition = Callable[[], Iterable[str]]


class Readiness:
    """The conditions under which this process is ready, beside the server's own."""

    def __init__(self) -> None:
        self._conditions: list[Condition] = []

    def require(self, condition: Condition) -> None:
        """Ask this too for each probe, on the event loop: it must not block."""
        if condition not in self._conditions:
            self._conditions.append(condition)

    def missing(self) -> list[str]:
        """Why the process is not ready."""
        return [reason for condition in self._conditions for reason in condition()]


#: Of this process, all its servers together.
readiness: Final = Readiness()


class Probes:
    """The probes of one server."""

    def __init__(self, options: ServerOptions) -> None:
        #: True from the moment that the server is told to stop.
        self.is_draining = False
        self._answers: dict[str, Callable[[], list[str]]] = {}
        if options.health_path:
            self._answers[options.health_path] = list
        if options.ready_path:
            self._answers[options.ready_path] = self._reasons
        self._targets = frozenset(path.encode() for path in self._answers)

    def __bool__(self) -> bool:
        return bool(self._answers)

    def __contains__(self, target: bytes) -> bool:
        """True for a request's target that is a probe's."""
        return bool(self._targets) and target.partition(b"?")[0] in self._targets

    def before(self, application: Application) -> Application:
        """The application behind the probes: itself, if there are none."""
        if not self._answers:
            return application

        # No coroutine: one more would be a cost for each request.
        def probed(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["type"] == "http" and scope["path"] in self._answers:
                return self._answer(scope, send)
            return application(scope, receive, send)

        return probed

    def when_full(self) -> Application:
        """Answers in the application's place while there are too many connections."""
        return self.before(_refuse)

    def _reasons(self) -> list[str]:
        return (["the server stops"] if self.is_draining else []) + readiness.missing()

    async def _answer(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await _respond(send, 405, b"", [(b"allow", b"GET, HEAD")])
            return
        reasons = self._answers[scope["path"]]()
        text = "; ".join(reasons) or "ok"
        await _respond(send, 503 if reasons else 200, f"{text}\n".encode())


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's
    counts.connections_refused += 1
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    await _respond(send, 503, b"Too many connections.", [(b"retry-after", b"1")], kind)


async def _respond(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    kind: str = "http",
) -> None:
    fields: list[tuple[bytes, Any]] = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
        *headers,
    ]
    await send({"type": f"{kind}.response.start", "status": status, "headers": fields})
    await send({"type": f"{kind}.response.body", "body": body})
