"""What consumers of Channels 1 raise to say what becomes of a message.

ChannelsError
├── ConsumeLater                      put the message back, try it again later
├── ResponseLater                     a view has no response yet; a consumer sends it
├── SendNotAvailableOnDemultiplexer   a demultiplexer has no stream to send on
└── ChannelSocketException            carries out an action on the message's connection
    └── WebsocketCloseException       ... closes it

`DenyConnection`, `RequestTimeout` and `RequestAborted` are those of `channels.exceptions`.
"""

from __future__ import annotations

from typing import Any

from channels.exceptions import ChannelsError


class ConsumeLater(ChannelsError):
    """Put the message back at the end of its channel; the worker does so a bounded number of times.

    See `message_retries` of `channels.legacy.worker.Worker`.
    """


class ResponseLater(ChannelsError):
    """Raised in a view: nothing is answered now; a consumer answers on the reply channel later."""


class SendNotAvailableOnDemultiplexer(ChannelsError):
    """A demultiplexer cannot send, for it has no stream: use its `multiplexer`."""


class ChannelSocketException(ChannelsError):
    """Raise a subclass in a consumer to have `run` called with the message."""

    def run(self, message: Any) -> None:
        """Act on the connection of the message that was handled when this was raised.

        Raises:
            NotImplementedError: Here; subclasses override it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define run(message).")


class WebsocketCloseException(ChannelSocketException):
    """Closes the WebSocket.

    Args:
        code: The close code, 1000 or 3000 to 4999 (RFC 6455, section 7.4.2); None is 1000.

    Raises:
        ValueError: If the code is another.
    """

    def __init__(self, code: int | None = None) -> None:
        is_int = isinstance(code, int) and not isinstance(code, bool)
        if code is not None and not (is_int and (code == 1000 or 3000 <= code <= 4999)):
            raise ValueError(f"code={code!r}: expected 1000, or an integer from 3000 to 4999.")
        super().__init__(code)
        self._code = code

    def run(self, message: Any) -> None:
        """Close the connection that the message came from."""
        message.reply_channel.send({"close": self._code or True})
