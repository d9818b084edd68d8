"""Every error that Channels raises.

ChannelsError
├── RequestAborted            the client went away before its request was complete
│   └── RequestTimeout        ... or sent it too slowly
├── AcceptConnection          raised by users in connect(): accept
├── DenyConnection            raised by users in connect(): refuse
├── ClientDisconnected        (OSError) something was sent to a client that has gone
├── StartupFailed             the application cannot be imported, or said that it cannot serve
├── StopConsumer              ends a consumer's loop; not an error
├── ClientLimitExceeded       a client is over a limit of its consumer; closes its WebSocket
├── ChannelFull               a send met a channel that holds its capacity
├── MessageTooLarge           a message is over the layer's size bound
├── MessageNotADict           (TypeError, AssertionError) something else was sent to a layer
├── ChannelLayerUnavailable   the backend was out of reach for the stated window
├── TransportDown             a layer's transport is not connected now; its node tries again
├── NodeGone                  a message for a process that no longer exists
├── MalformedEnvelope         (ValueError) bytes from a broker that no node wrote
├── MalformedMessage          (ValueError) edge or worker got a message that is not in their table
├── WorkerLost                the worker of a connection has died, or its application failed there
├── InvalidChannelLayerError  (ValueError) a layer is configured wrongly
├── InvalidOption             (ValueError) an option has a value outside its bounds
├── NoRouteFound              (ValueError) no route for a connection
├── UnknownMessageType        (ValueError) a message's type names no handler of its consumer
└── ProtocolError             a rule of HTTP or WebSocket was broken
    ├── LocalProtocolError    (ValueError) ... by the application: a bug here
    └── RemoteProtocolError   ... by the peer: answer with `status` or `close_code`
"""

from __future__ import annotations

from typing import Final

from channels.kit.old_names import old_names


class ChannelsError(Exception):
    """The root of all errors in this package."""


class RequestAborted(ChannelsError):
    """The client went away before its request was complete."""


class RequestTimeout(RequestAborted):
    """The client sent its request too slowly."""


class AcceptConnection(ChannelsError):
    """Raise it in `connect()` to accept the WebSocket."""


class DenyConnection(ChannelsError):
    """Raise it in `connect()` to refuse the WebSocket."""


class ClientDisconnected(ChannelsError, OSError):
    """Nothing more can be sent to the client, or awaited from it: its connection is closed.

    ASGI specification, "Events": a send to a closed connection raises "a server-specific subclass
    of OSError".  An application may let it escape; the server does not count that as a fault.
    """


def is_disconnection(error: BaseException | None) -> bool:
    """True for a ClientDisconnected, also as the only kind of error in a task group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(ClientDisconnected)[1] is None
    return isinstance(error, ClientDisconnected)


class StartupFailed(ChannelsError):
    """The application cannot be imported, or said at startup that it cannot serve; with its reason.

    Args:
        filename: The project's file that is at fault, where one is known.  Django's reloader
            watches it by this attribute: a module whose import failed is in no list of modules.
    """

    def __init__(self, reason: str, *, filename: str | None = None) -> None:
        super().__init__(reason)
        self.filename = filename


class StopConsumer(ChannelsError):
    """Raise it in a handler to end the consumer without an error."""


class ClientLimitExceeded(ChannelsError):
    """A client is over one of its consumer's `client_limits`; uncaught, it closes the WebSocket.

    Args:
        reason: The label in the metrics.
        text: What the client did, and the limit, for the log.
        close_code: RFC 6455 section 7.4.1: 1008, "a message that violates its policy".
    """

    def __init__(self, reason: str, text: str, close_code: int = 1008) -> None:
        super().__init__(text)
        self.reason = reason
        self.close_code = close_code


class ChannelFull(ChannelsError):
    """A channel holds its capacity of unread messages, so this one was not sent."""


class MessageTooLarge(ChannelsError):
    """A message is larger than the layer carries; nothing was sent."""


class MessageNotADict(ChannelsError, TypeError, AssertionError):
    """What was sent to a layer is no dict; nothing was sent.

    Channels 4 asserts it: tests of applications and packages expect an AssertionError.
    """


class ChannelLayerUnavailable(ChannelsError):
    """The layer's backend could not be reached within its `send_timeout`."""


class TransportDown(ChannelsError):
    """A transport is not connected now.  Raised by transports, to their node only."""


class NodeGone(ChannelsError):
    """The process that a channel belongs to no longer exists.  Raised by transports."""


class MalformedEnvelope(ChannelsError, ValueError):
    """Bytes from a broker are no envelope: another program's, or another version's."""


class MalformedMessage(ChannelsError, ValueError):
    """A message between edge and worker is not in their table, or breaks its rules."""


class WorkerLost(ChannelsError):
    """The worker that served a connection has died, or its application failed there."""


class InvalidChannelLayerError(ChannelsError, ValueError):
    """A channel layer is configured wrongly, or is needed and not configured."""


class InvalidOption(ChannelsError, ValueError):
    """An option has a value that its declaration does not allow."""


class NoRouteFound(ChannelsError, ValueError):
    """No route matches a connection; the outermost router answers 404 or 403.

    Args:
        hint: What may be wrong with the routes: a sentence for the log, after a space; or "".
    """

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class UnknownMessageType(ChannelsError, ValueError):
    """The type of a message is missing, malformed, or names no handler of the consumer."""


class ProtocolError(ChannelsError):
    """A rule of HTTP or WebSocket was broken."""


class LocalProtocolError(ProtocolError, ValueError):
    """The application broke a rule: a bug on this side, answered with 500 or close 1011."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule.

    Args:
        reason: What was found and what was expected, for the log and the answer.
        status: The HTTP status to answer with, while HTTP is spoken.
        close_code: The WebSocket close code to answer with, once frames are spoken.
    """

    def __init__(self, reason: str, *, status: int = 400, close_code: int = 1002) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.close_code = close_code


_LOGGED: Final = "channels.logged"


def mark_logged(error: BaseException) -> None:
    """Note on an error that all was logged that is worth it: whoever sees it next need not."""
    vars(error)[_LOGGED] = True


def was_logged(error: BaseException) -> bool:
    """True if somebody has logged this error."""
    return _LOGGED in vars(error)


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "ChannelSocketException": "channels.legacy.exceptions",
        "ConsumeLater": "channels.legacy.exceptions",
        "ResponseLater": "channels.legacy.exceptions",
        "SendNotAvailableOnDemultiplexer": "channels.legacy.exceptions",
        "WebsocketCloseException": "channels.legacy.exceptions",
    },
)
