"""What consumers raise, and what of it is checked."""

from __future__ import annotations

from typing import Any

import pytest

from channels import exceptions
from channels.exceptions import DenyConnection
from channels.legacy.exceptions import (
    ChannelSocketException,
    ConsumeLater,
    WebsocketCloseException,
)
from channels.legacy.message import Message
from tests.legacy.conftest import MakeSite


@pytest.mark.parametrize("code", [None, 1000, 3000, 4999])
def test_a_close_code_that_an_application_may_send(code: int | None, site: MakeSite) -> None:
    layer = site()
    reply = layer.new_channel("websocket.send!")
    message = Message({"reply_channel": reply}, "websocket.receive", layer)
    WebsocketCloseException(code).run(message)
    assert layer.receive([reply]) == (reply, {"close": code or True})


@pytest.mark.parametrize("code", [0, 999, 1001, 1006, 2999, 5000, "1000", True, 3000.0])
def test_any_other_close_code_is_refused(code: Any) -> None:
    with pytest.raises(ValueError, match="expected 1000, or an integer from 3000 to 4999"):
        WebsocketCloseException(code)


def test_an_action_must_be_defined() -> None:
    class Nothing(ChannelSocketException):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing must define run\(message\)"):
        Nothing().run(None)


def test_the_module_of_all_errors_has_them_too() -> None:
    for kind in (ChannelSocketException, ConsumeLater, WebsocketCloseException):
        assert getattr(exceptions, kind.__name__) is kind


def test_they_are_caught_as_errors_of_this_package() -> None:
    assert issubclass(ConsumeLater, exceptions.ChannelsError)
    assert issubclass(exceptions.ResponseLater, Exception)
    assert not issubclass(DenyConnection, ChannelSocketException)
