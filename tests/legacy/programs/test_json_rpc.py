"""The suite of such a package runs as it stands."""

from __future__ import annotations

import json
from typing import Any

from channels import route_class
from channels.test import ChannelTestCase, HttpClient
from tests.legacy.programs import json_rpc
from tests.legacy.programs.json_rpc import JsonRpcConsumer
from tests.legacy.routes import routed


class Calculator(JsonRpcConsumer):
    channel_session = True


class Other(JsonRpcConsumer):
    pass


@Calculator.rpc_method()
def add(a: int, b: int, original_message: Any) -> int:
    return a + b


@Calculator.rpc_method("session.count")
def count(original_message: Any) -> int:
    session = original_message.channel_session
    session["count"] = session.get("count", 0) + 1
    found: int = session["count"]
    return found


@routed(route_class(Calculator, path="/rpc"))
class TestJsonRpc(ChannelTestCase):
    def call(self, client: HttpClient, method: Any, params: Any = (), **more: Any) -> Any:
        asked = {"id": 1, "jsonrpc": "2.0", "method": method, "params": params, **more}
        client.send_and_consume("websocket.receive", text=asked, path="/rpc")
        return client.receive()

    def test_connection(self) -> None:
        client = HttpClient()
        client.send_and_consume("websocket.connect", path="/rpc")
        assert client.receive() is None

    def test_method(self) -> None:
        client = HttpClient()
        assert self.call(client, "add", [1, 2])["result"] == 3
        assert self.call(client, "add", {"a": 1, "b": 3})["result"] == 4

    def test_errors(self) -> None:
        client = HttpClient()
        assert self.call(client, "multiply")["error"]["code"] == json_rpc.METHOD_NOT_FOUND
        assert self.call(client, "add", 1)["error"]["code"] == json_rpc.INVALID_PARAMS
        wrong = self.call(client, "add", [1])["error"]
        assert "missing 1 required positional argument" in wrong["message"]
        for content, code in (
            ({"text": "{"}, json_rpc.PARSE_ERROR),
            ({"text": "[1]"}, json_rpc.INVALID_REQUEST),
            ({"value": "no text"}, json_rpc.INVALID_REQUEST),
        ):
            client.send_and_consume("websocket.receive", content, path="/rpc")
            assert client.receive()["error"]["code"] == code

    def test_notification(self) -> None:
        client = HttpClient()
        client.send_and_consume(
            "websocket.receive", text='{"jsonrpc": "2.0", "method": "add"}', path="/rpc"
        )
        assert client.receive() is None

    def test_session(self) -> None:
        client, other = HttpClient(), HttpClient()
        counts = [self.call(each, "session.count")["result"] for each in (client, client, other)]
        assert counts == [1, 2, 1]

    def test_methods_of_a_class_are_its_own(self) -> None:
        assert list(JsonRpcConsumer.methods[Calculator]) == ["add", "session.count"]
        assert Other not in JsonRpcConsumer.methods

    def test_http(self) -> None:
        client = HttpClient()
        body = {"id": "a", "jsonrpc": "2.0", "method": "add", "params": [2, 2]}
        content = {"method": "POST", "body": json.dumps(body).encode()}
        client.send_and_consume("http.request", content, path="/rpc")
        response = client.receive()
        assert response["status"] == 200
        assert json.loads(response["content"]) == {"jsonrpc": "2.0", "id": "a", "result": 4}
        assert dict(response["headers"])[b"Content-Type"] == b"application/json-rpc"
        client.send_and_consume("http.request", {"method": "GET"}, path="/rpc")
        assert client.receive()["status"] == 400
