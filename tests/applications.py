"""Small ASGI applications and a way to call them, for the tests of routers and middleware."""

from __future__ import annotations

from typing import Any

from channels.kit.types import Message, Receive, Scope, Send


class Recorder:
    """An application that keeps the scopes it was called with, and does nothing else."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)

    @property
    def scope(self) -> Scope:
        """The only scope it was called with."""
        (scope,) = self.scopes
        return scope


async def call(application: Any, scope: Scope, *events: Message) -> list[Message]:
    """Run an application to its end with the given events to receive; what it sent."""
    waiting = list(events)
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent
