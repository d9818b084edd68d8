"""One connection to a NATS server, by nats-py: until it breaks, and then no more.

nats-py's own reconnecting is off: it would send again, in silence, what the process's end of the
layer has given up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError, SlowConsumerError
from nats.js.errors import APIError, NoStreamResponseError

from channels.backends.nats.address import NatsAddress
from channels.backends.shell import Broken, OpenConnection, abandon, unreachable

logger = logging.getLogger("channels.layers")

CONNECT_SECONDS: Final = 5
_CLOSE_SECONDS: Final = 0.3
#: For an answer of JetStream's, and for the word that what was published is there.
ANSWER_SECONDS: Final = 5.0
#: Clients whose loop is closed, or another process's.
_abandoned: Final[list[Client]] = []


class NatsConnection(OpenConnection):
    """A connection that is open; what answers one request is an error of JetStream's.

    Args:
        on_slow: Called when messages were dropped here because this process is behind.
    """

    name = "NATS"
    errors = (NatsError,)
    answers = (APIError, NoRespondersError, NoStreamResponseError)

    def __init__(self, on_slow: Callable[[], None]) -> None:
        super().__init__()
        self.client = Client()
        self.js = self.client.jetstream(timeout=ANSWER_SECONDS)
        self._on_slow = on_slow
        self._is_connecting = True
        self._last_error: BaseException | None = None
        self._barrier: asyncio.Task[None] | None = None
        #: Subject -> its subscription.
        self._joined: dict[str, Subscription] = {}

    async def open(self, address: NatsAddress, ping_interval: float) -> None:
        """Connect and log in, or close what was opened.

        Raises:
            Broken, NatsError: If that fails; the former names a server that is not there.
        """
        try:
            await self._connect(address, ping_interval)
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                raise unreachable(f"NATS at {address}", error, "servers") from error
            raise
        finally:
            self._is_connecting = False

    async def _connect(self, address: NatsAddress, ping_interval: float) -> None:
        said = address.arguments
        words: dict[str, Any] = said

        def told(word: str) -> str:
            """A secret, asked for when the server has said whether it encrypts."""
            self._require_tls(address)
            return str(said[word])

        for word in {"user", "password", "token"} & said.keys():
            words = {**words, word: partial(told, word)}
        await self.client.connect(
            **words,
            name="channels",
            allow_reconnect=False,
            connect_timeout=CONNECT_SECONDS,
            # It only sleeps for them, so they may be fractions.
            ping_interval=ping_interval,  # type: ignore[arg-type]
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            closed_cb=self._on_disconnected,
        )
        self._require_tls(address)

    def _require_tls(self, address: NatsAddress) -> None:
        """nats-py goes on in clear with a server that offers no TLS, or an attacker that hides it.

        Raises:
            Broken: If TLS is asked for and is not there.
        """
        writer = self._writer
        if address.tls and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise Broken(
                f"{address} offers no TLS: expected it, because its URL begins with tls://"
            )

    async def subscribe(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Hear a subject; the server knows it once `barrier` has returned."""

        async def on_message(message: Msg) -> None:
            take(message)

        return await self.client.subscribe(subject, cb=on_message)

    async def join(self, subjects: Sequence[str], take: Callable[[Msg], None]) -> None:
        """Hear these subjects: what is published after this returns arrives."""
        for subject in subjects:
            if subject not in self._joined:
                self._joined[subject] = await self.subscribe(subject, take)
        await self.barrier()

    async def leave(self, subjects: Sequence[str]) -> None:
        """Hear these subjects no more."""
        for subject in subjects:
            if (found := self._joined.pop(subject, None)) is not None:
                await found.unsubscribe()

    async def publish(self, subject: str, data: bytes) -> None:
        """Send, in the order of the calls; done when the server has it."""
        await self.client.publish(subject, data)
        await self.barrier()

    async def barrier(self) -> None:
        """Done when the server has all that was published so far; one question for a loop's turn.

        Raises:
            TransportDown: If the connection breaks before.
        """
        if self._barrier is None:
            self._barrier = self.spawn(self._ask_whether_it_is_there())
        await self.outcome(asyncio.shield(self._barrier))

    async def _ask_whether_it_is_there(self) -> None:
        await asyncio.sleep(0)
        self._barrier = None
        await self.client.flush(ANSWER_SECONDS)  # type: ignore[arg-type]

    async def _close(self) -> None:
        """What was written leaves."""
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.client.close()
        if (writer := self._writer) is not None:
            # After a TLS handshake that failed nobody tells asyncio that it is closed.
            writer.transport.abort()

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        # nats-py has no public way to its socket.
        return getattr(getattr(self.client, "_transport", None), "_io_writer", None)

    def abandon(self) -> None:
        if (writer := self._writer) is not None:
            abandon(writer.transport)
        # Collected, it would warn of its loop.
        _abandoned.append(self.client)

    # Called by nats-py.

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        if isinstance(error, SlowConsumerError):
            self._on_slow()
        logger.debug("NATS: %s", error)
        if self._is_connecting:
            # Otherwise nats-py tries this one server again and again, in silence.
            raise error

    async def _on_disconnected(self) -> None:
        self.fail(self._last_error or "the server has closed the connection")
