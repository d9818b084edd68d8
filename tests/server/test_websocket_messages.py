"""What an application may say on a WebSocket, and when."""

from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.server.websocket_messages import MAY_SAY, Stage, check_kind, close_of, data_of

KINDS = sorted({kind for kinds in MAY_SAY.values() for kind in kinds})


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("kind", KINDS)
def test_each_stage_takes_what_its_row_says(stage: Stage, kind: str) -> None:
    if kind in MAY_SAY[stage]:
        assert check_kind(stage, {"type": kind}) == kind
    elif stage is Stage.CLOSED:
        with pytest.raises(ClientDisconnected):
            check_kind(stage, {"type": kind})
    else:
        with pytest.raises(LocalProtocolError, match=f"{kind}.*while {stage.value}: expected"):
            check_kind(stage, {"type": kind})


def test_sending_to_a_closed_socket_raises_what_asgi_promises() -> None:
    with pytest.raises(OSError, match="closed"):
        check_kind(Stage.CLOSED, {"type": "websocket.send", "text": "x"})


@pytest.mark.parametrize("stage", Stage)
def test_an_unknown_type_is_ignored_in_every_stage(stage: Stage) -> None:
    assert check_kind(stage, {"type": "websocket.sned"}) is None


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("message", [{"type": None}, {}])
def test_a_message_without_a_type_is_an_error(stage: Stage, message: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="'type' is a str: found"):
        check_kind(stage, message)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ({"text": "a"}, "a"),
        ({"text": ""}, ""),
        ({"bytes": b"a"}, b"a"),
        ({"bytes": b""}, b""),
        ({"text": "a", "bytes": None}, "a"),
        ({"text": None, "bytes": b"a"}, b"a"),
        ({"text": "", "bytes": b"a"}, b"a"),
        ({"text": "a", "bytes": b""}, "a"),
        ({"text": "", "bytes": b""}, ""),
        ({"bytes": bytearray(b"a")}, b"a"),
        ({"bytes": memoryview(b"a")}, b"a"),
    ],
)
def test_a_message_is_its_text_or_its_bytes(message: dict[str, Any], data: str | bytes) -> None:
    found = data_of(message)
    assert found == data
    assert type(found) is type(data)


@pytest.mark.parametrize(
    "message",
    [{"text": "a", "bytes": b"b"}, {"text": b"a"}, {"bytes": "a"}, {"text": 1}],
)
def test_both_or_a_wrong_type_is_an_error(message: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        data_of(message)


def test_a_close_has_a_code_and_a_reason() -> None:
    assert close_of({}) == (1000, "")
    assert close_of({"code": None, "reason": None}) == (1000, "")
    assert close_of({"code": 4000, "reason": "why"}) == (4000, "why")


@pytest.mark.parametrize("message", [{}, {"text": None}, {"text": None, "bytes": None}])
def test_a_send_of_nothing_is_ignored(message: dict[str, Any]) -> None:
    assert data_of(message) is None
