"""A response goes no faster than its client takes it, wherever the worker runs.

What a worker replies goes to the process of the interface server without an answer.  An interface
server that says `response_window` in `http.request` gives one if it is asked: a part of a response
may name an `ack_channel`, and once the client takes that part a message comes there.  One with
`closed` comes when the client has gone, asked for or not, if it knows the channel by then.
"""

from __future__ import annotations

import time
from typing import Any, Final

from channels.exceptions import ChannelFull, RequestAborted

#: In a request: bytes of its response that may be under way.
WINDOW: Final = "response_window"
#: In a part of a response: where the worker waits for the client to take it.
ACK_CHANNEL: Final = "ack_channel"
#: In the answer: the client has gone.
CLOSED: Final = "closed"

#: How long the answer to the first part may take, for which there is room at once: no answer means
#: that the client went before, and nobody knows where to say it.
FIRST_SECONDS: Final = 10.0
#: Between two tries to send to a full channel.
RETRY_SECONDS: Final = 0.05


class PacedReply:
    """Sends the parts of one response.

    Args:
        request: The `http.request`.
        seconds: How long the client may take nothing.
    """

    def __init__(self, request: Any, seconds: float) -> None:
        self._channel = request.reply_channel
        self._layer = request.channel_layer
        self._seconds = seconds
        window = request.get(WINDOW)
        #: Half of it: one half is under way while the worker makes the next.
        self._window = window // 2 if isinstance(window, int) and window > 0 else None
        self._unasked = 0
        self._ack_channel = ""
        self._patience = FIRST_SECONDS

    def send(self, part: dict[str, Any]) -> None:
        """Send a part, if need be once the client has taken what was sent before.

        Raises:
            RequestAborted: If the client has gone.
            ChannelFull: If it takes nothing for so long.
        """
        if self._window is not None and part.get("more_content"):
            self._unasked += len(part.get("content", b""))
            if not self._ack_channel:
                self._ack_channel = self._layer.new_channel("http.ack!")
                part = {**part, ACK_CHANNEL: self._ack_channel}
            elif self._unasked >= self._window:
                self._unasked = 0
                self._wait()
                part = {**part, ACK_CHANNEL: self._ack_channel}
        self._send(part)

    def _wait(self) -> None:
        """Wait for the answer that was asked for last."""
        seconds, self._patience = min(self._patience, self._seconds), self._seconds
        _, answer = self._layer.receive([self._ack_channel], block=True, timeout=seconds)
        if answer is None:
            raise ChannelFull(
                f"The client of {self._channel} took nothing of its response for {seconds:g} s."
            )
        if answer.get(CLOSED):
            raise RequestAborted("The client went before it had the whole response.")

    def _send(self, part: dict[str, Any]) -> None:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                self._channel.send(part, immediately=True)
            except ChannelFull:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                return
