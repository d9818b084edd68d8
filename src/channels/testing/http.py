"""One HTTP request to an application, in a test."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlparse

from channels.kit.types import HeaderPairs, Scope
from channels.testing.application import ApplicationCommunicator


class HttpCommunicator(ApplicationCommunicator):
    """Sends one request and collects its response.

    Args:
        method: In any case; the application sees it in upper case.
        path: With a query string, if there is to be one; percent-encoded.
    """

    def __init__(
        self,
        application: Any,
        method: str,
        path: str,
        body: bytes = b"",
        headers: HeaderPairs | None = None,
    ) -> None:
        parsed = urlparse(path)
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method.upper(),
            "path": unquote(parsed.path),
            "query_string": parsed.query.encode(),
            "headers": list(headers or []),
        }
        assert isinstance(body, bytes), "Body is not bytes"
        self.body = body
        self.sent_request = False
        super().__init__(application, scope)

    async def get_response(self, timeout: float = 1) -> dict[str, Any]:
        """The response: "status", "headers", and "body" as one piece.

        Args:
            timeout: Seconds to wait for each part of it.
        """
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body})
        start = await self.receive_output(timeout)
        assert start["type"] == "http.response.start", (
            f"Expected type 'http.response.start', but was '{start['type']}'"
        )
        return {
            "status": start["status"],
            "headers": list(start.get("headers", [])),
            "body": await self._body(timeout),
        }

    async def _body(self, timeout: float) -> bytes:
        chunks = []
        while True:
            part = await self.receive_output(timeout)
            assert part["type"] == "http.response.body", (
                f"Expected type 'http.response.body', but was '{part['type']}'"
            )
            chunks.append(part.get("body", b""))
            if not part.get("more_body", False):
                return b"".join(chunks)
