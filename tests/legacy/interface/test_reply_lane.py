"""Replies that go straight to a socket, and those that wait."""

from __future__ import annotations

from typing import Any

from channels.fanout.prepared import DEFLATE, PLAIN
from channels.kit.mailbox import Mailbox, MailboxBounds
from channels.legacy.interface.reply_lane import FrameCache, ReplyLane
from channels.wire.frames import TEXT, server_frame


class Socket:
    """A sink that keeps what is written."""

    def __init__(self, form: str | None = PLAIN) -> None:
        self.form = form
        self.written: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.written.append(frame)


def test_a_groups_message_is_framed_once_for_all_of_a_form() -> None:
    frames = FrameCache()
    sockets = [Socket(), Socket(DEFLATE), Socket()]
    message = {"text": "x" * 500, "username": "anna"}
    for socket in sockets:
        assert ReplyLane(Mailbox(), socket, frames).put_layer(message)
    (plain,), (small,), (again,) = (socket.written for socket in sockets)
    assert plain == server_frame(TEXT, b"x" * 500)
    assert again is plain
    assert len(small) < 100
    # An equal message is another one: it may have been changed.
    ReplyLane(Mailbox(), sockets[0], frames).put_layer(dict(message))
    assert sockets[0].written[1] is not plain


def test_nothing_overtakes_what_waits() -> None:
    socket, mailbox = Socket(None), Mailbox()
    lane = ReplyLane(mailbox, socket, FrameCache())
    lane.put_layer({"text": "first"})
    socket.form = PLAIN
    lane.put_layer({"text": "second"})
    assert (socket.written, lane.layer_size, lane.layer_is_clear) == ([], 2, False)
    taken = [mailbox.get_layer_nowait(), mailbox.get_layer_nowait()]
    # The second is in hand: it may still be on its way.
    lane.put_layer({"text": "third"})
    taken.append(mailbox.get_layer_nowait())
    assert taken == [{"text": "first"}, {"text": "second"}, {"text": "third"}]
    assert mailbox.get_layer_nowait() is None
    lane.put_layer({"text": "fourth"})
    assert len(socket.written) == 1


def test_what_is_more_than_data_waits_for_the_sockets_task() -> None:
    socket, mailbox = Socket(), Mailbox()
    lane = ReplyLane(mailbox, socket, FrameCache())
    waiting: list[Any] = [{"accept": True}, {"text": "bye", "close": True}, {}, {"text": 5}]
    for reply in waiting:
        lane.put_layer(reply)
    assert not socket.written
    assert [mailbox.get_layer_nowait() for _ in waiting] == waiting


def test_what_is_too_much_is_refused() -> None:
    mailbox = Mailbox(MailboxBounds(capacity=2))
    lane = ReplyLane(mailbox, None, FrameCache())
    assert [lane.put_layer({"text": "x"}) for _ in range(3)] == [True, True, False]
    assert (lane.displaced, lane.expired) == (0, 0)
