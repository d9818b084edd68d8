"""A package in the style of its time: JSON-RPC 2.0 over sockets and HTTP requests, in one class."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse

from channels.generic.websockets import WebsocketConsumer
from channels.handler import AsgiHandler, AsgiRequest

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
APPLICATION_ERROR = -32000


class RpcError(Exception):
    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code


class JsonRpcConsumer(WebsocketConsumer):
    method_mapping = {**WebsocketConsumer.method_mapping, "http.request": "http_handler"}
    methods: dict[type, dict[str, Callable[..., Any]]] = {}

    @classmethod
    def rpc_method(cls, name: str | None = None) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            cls.methods.setdefault(cls, {})[name or function.__name__] = function
            return function

        return register

    def http_handler(self, message: Any, **kwargs: Any) -> None:
        request = AsgiRequest(message)
        text = request.body.decode() if request.method == "POST" else None
        answer = self.answer(text, message)
        response = HttpResponse(
            json.dumps(answer),
            content_type="application/json-rpc",
            status=400 if "error" in answer else 200,
        )
        for part in AsgiHandler.encode_response(response):
            message.reply_channel.send(part)

    def raw_receive(self, message: Any, **kwargs: Any) -> None:
        answer = self.answer(message.get("text"), message)
        if answer is not None:
            self.send(text=json.dumps(answer))

    def answer(self, text: str | None, message: Any) -> Any:
        asked: Any = None
        try:
            asked = json.loads(text) if text else None
            if not isinstance(asked, dict) or asked.get("jsonrpc") != "2.0":
                raise RpcError(INVALID_REQUEST)
            if "id" not in asked:
                return None
            result = self.call(asked.get("method"), asked.get("params", []), message)
        except RpcError as error:
            return self.failed(asked, error.code, str(error))
        except ValueError as error:
            return self.failed(asked, PARSE_ERROR, str(error))
        except Exception as error:
            return self.failed(asked, APPLICATION_ERROR, str(error))
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}

    @classmethod
    def call(cls, name: Any, params: Any, message: Any) -> Any:
        method = cls.methods.get(cls, {}).get(name)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND)
        if isinstance(params, list):
            return method(*params, original_message=message)
        if isinstance(params, dict):
            return method(original_message=message, **params)
        raise RpcError(INVALID_PARAMS)

    @staticmethod
    def failed(asked: Any, code: int, text: str) -> Any:
        found = asked.get("id") if isinstance(asked, dict) else None
        return {"jsonrpc": "2.0", "id": found, "error": {"code": code, "message": text}}
