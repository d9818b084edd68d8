"""Each answer that a handshake can get, and that it gets only one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from channels.exceptions import LocalProtocolError, RemoteProtocolError
from channels.server.websocket_opening import Opening, opening_of
from channels.wire.request import Request
from tests.wire.test_handshake import GOOD


class Written:
    """An outlet that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def opening(
    *fields: tuple[bytes, bytes],
    method: str = "GET",
    compress: bool = True,
    outlet: Any = None,
) -> Opening:
    request = Request(
        method=method,
        raw_path=b"/",
        query=b"",
        headers=[*GOOD, *fields],
        http_version="1.1",
        keep_alive=True,
        content_length=0,
        expects_continue=False,
        upgrade=b"websocket",
    )
    stamp = [(b"server", b"us", b"server: us\r\n")]
    return opening_of(outlet or cast(Any, Written()), request, lambda: stamp, compress=compress)


DEFLATE = (b"sec-websocket-extensions", b"permessage-deflate")


def test_a_bad_request_is_refused_without_an_application() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        opening(method="POST")
    assert caught.value.status == 405


@pytest.mark.parametrize("compress", [True, False])
def test_compression_is_offered_as_asked(compress: bool) -> None:
    outlet = Written()
    asked = opening(DEFLATE, compress=compress, outlet=outlet)
    assert (asked.compression is not None) is compress
    asked.accept({})
    assert (b"permessage-deflate" in outlet.data) is compress


def test_a_refusal_is_a_whole_response_that_closes() -> None:
    outlet = Written()
    asked = opening(outlet=outlet)
    asked.refuse(403)
    answer = outlet.data
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"\r\nserver: us\r\n" in answer
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nForbidden")
    assert asked.status == 403
    assert not asked.can_be_refused


def test_a_denial_that_was_only_started_gives_way_to_an_error() -> None:
    outlet = Written()
    asked = opening(outlet=outlet)
    asked.start_denial({"status": 401, "headers": [(b"x", b"y")]})
    assert asked.can_be_refused
    asked.refuse(500)
    assert b"HTTP/1.1 500 " in outlet.data


def test_a_denial_in_pieces_is_complete_with_its_last() -> None:
    outlet = Written()
    asked = opening(outlet=outlet)
    asked.start_denial({"status": 401})
    asked.deny({"body": b"log ", "more_body": True})
    assert outlet.data.startswith(b"HTTP/1.1 401 ")
    assert not asked.is_denied
    assert not asked.can_be_refused
    asked.deny({"body": b"in"})
    assert asked.is_denied
    assert asked.size == 6


@pytest.mark.parametrize("start", [{}, {"status": 101}, {"status": "401"}])
def test_an_unfit_denial_is_the_applications_error(start: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        opening().start_denial({"type": "websocket.http.response.start", **start})


def test_a_denials_body_is_bytes() -> None:
    asked = opening()
    asked.start_denial({"status": 401})
    with pytest.raises(LocalProtocolError, match="bytes"):
        asked.deny({"body": "text"})
