"""One WebSocket to an application, in a test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlparse

from channels.kit.types import HeaderPairs, Headers, Message, Scope
from channels.testing.application import ApplicationCommunicator


class WebsocketCommunicator(ApplicationCommunicator):
    """Connects to an application, exchanges messages, disconnects.

    Args:
        path: With a query string, if there is to be one; percent-encoded.
        spec_version: Becomes scope["spec_version"] if given.
    """

    def __init__(
        self,
        application: Any,
        path: str,
        headers: HeaderPairs | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise TypeError(f"Expected str, got {type(path)}")
        parsed = urlparse(path)
        scope: Scope = {
            "type": "websocket",
            "path": unquote(parsed.path),
            "query_string": parsed.query.encode(),
            "headers": list(headers or []),
            "subprotocols": list(subprotocols or []),
        }
        if spec_version:
            scope["spec_version"] = spec_version
        #: What the application added to its answer, once `connect` has returned.
        self.response_headers: Headers | None = None
        super().__init__(application, scope)

    async def connect(self, timeout: float = 1) -> tuple[bool, Any]:
        """Ask to connect.

        Returns (True, the chosen subprotocol or None) if the application accepts, else (False, the
        close code, or the status of a denial response).
        """
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(timeout)
        if answer["type"] == "websocket.close":
            return False, answer.get("code", 1000)
        if answer["type"] == "websocket.http.response.start":
            return False, await self._denied(answer, timeout)
        assert answer["type"] == "websocket.accept", (
            f"Expected type 'websocket.accept', but was '{answer['type']}'"
        )
        self.response_headers = list(answer.get("headers", []))
        return True, answer.get("subprotocol")

    async def _denied(self, start: Message, timeout: float) -> Any:
        self.response_headers = list(start.get("headers", []))
        while (await self.receive_output(timeout)).get("more_body", False):
            pass
        return start["status"]

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one message of text or bytes; it may be empty."""
        if text_data is not None and bytes_data is not None:
            assert bool(text_data) != bool(bytes_data), "Send text_data or bytes_data, not both"
            # One of them was written as an empty default: it does not count.
            text_data, bytes_data = text_data or None, bytes_data or None
        if text_data is not None:
            assert isinstance(text_data, str), f"text_data is not str, it is {type(text_data)}"
            await self.send_input({"type": "websocket.receive", "text": text_data})
        else:
            assert bytes_data is not None, "Send text_data or bytes_data: found neither"
            assert isinstance(bytes_data, bytes), f"bytes_data is not bytes: {type(bytes_data)}"
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """Send one message of JSON."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> Any:
        """The next message: text as str, or bytes."""
        said = await self.receive_output(timeout)
        assert said["type"] == "websocket.send", (
            f"Expected type 'websocket.send', but was '{said['type']}'"
        )
        text, data = said.get("text"), said.get("bytes")
        assert (text is None) != (data is None), (
            f"A message has text or bytes, exactly one of them: found {said!r}"
        )
        if text is not None:
            assert isinstance(text, str), f"The text of a message is not str: {type(text)}"
            return text
        assert isinstance(data, bytes), f"The bytes of a message are not bytes: {type(data)}"
        return data

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """The next message, decoded from JSON."""
        payload = await self.receive_from(timeout)
        assert isinstance(payload, str), f"JSON comes as text, but this was {type(payload)}"
        return json.loads(payload)

    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None:
        """Leave, and wait for the application's end; what it raised is raised."""
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)
