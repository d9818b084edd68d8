"""One connection to a NATS server, by nats-py: until it breaks, and then no more.

nats-py's own reconnecting is off: it would send again, in silence, what the process's end of the
layer has given up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError, SlowConsumerError

from channels.backends.descriptors import let_go
from channels.backends.nats.address import Address
from channels.exceptions import ChannelsError

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

CONNECT_SECONDS: Final = 5
_CLOSE_SECONDS: Final = 0.3
#: For an answer of JetStream's, and for the word that what was published is there.
ANSWER_SECONDS: Final = 5.0


class Broken(ChannelsError):
    """The connection is of no use any more."""


class NatsConnection:
    """A connection that is open.

    Args:
        on_slow: Called when messages were dropped here because this process is behind.
    """

    def __init__(self, on_slow: Callable[[], None]) -> None:
        self.client = Client()
        self.js = self.client.jetstream(timeout=ANSWER_SECONDS)
        self._loop = asyncio.get_running_loop()
        #: Done, with what happened, once it is broken.
        self.ended: asyncio.Future[BaseException] = self._loop.create_future()
        self._on_slow = on_slow
        self._is_connecting = True
        self._last_error: BaseException | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        self._barrier: asyncio.Future[None] | None = None

    async def open(self, address: Address, ping_interval: float) -> None:
        """Connect and log in.

        Raises:
            NatsError, OSError, TimeoutError: If that fails.
        """
        try:
            await self._connect(address, ping_interval)
        finally:
            self._is_connecting = False

    async def _connect(self, address: Address, ping_interval: float) -> None:
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

    def _require_tls(self, address: Address) -> None:
        """nats-py goes on in clear with a server that offers no TLS, or an attacker that hides it.

        Raises:
            Broken: If TLS is asked for and is not there.
        """
        writer = self._writer
        if address.tls and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise Broken(
                f"{address} offers no TLS: expected it, because its URL begins with tls://"
            )

    async def subscribe(self, subject: str, take: Callable[[Msg], None]) -> Any:
        """Hear a subject; the server knows it once `barrier` has returned."""

        async def on_message(message: Msg) -> None:
            take(message)

        return await self.client.subscribe(subject, cb=on_message)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send, in the order of the calls."""
        await self.client.publish(subject, data, reply)

    def barrier(self) -> Awaitable[None]:
        """Done when the server has all that was published so far; one question for a loop's turn.

        Raises:
            Broken: If the connection breaks before.
        """
        if self._barrier is None:
            self._barrier = self._loop.create_task(self._ask_whether_it_is_there())
            self._watch(self._barrier)
        return self._outcome(asyncio.shield(self._barrier))

    async def _ask_whether_it_is_there(self) -> None:
        await asyncio.sleep(0)
        self._barrier = None
        await self.client.flush(ANSWER_SECONDS)  # type: ignore[arg-type]

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a request, begun in the order of the calls.

        Raises:
            Broken: If the connection breaks before, or nothing answers in time.
            NatsError: What the server answers.
        """
        task = self._loop.create_task(work)
        self._watch(task)
        return await self._outcome(task)

    def _watch(self, call: asyncio.Future[Any]) -> None:
        """End a call when the connection ends: nats-py would leave it to its timeout."""
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        if self.ended.done():
            call.cancel()

    async def _outcome(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.ended.done() and (task is None or not task.cancelling()):
                raise Broken(str(self.ended.result())) from None
            raise
        except NoRespondersError:
            raise
        except (TimeoutError, OSError) as error:
            self.fail(Broken("no answer came in time"))
            raise Broken(str(self.ended.result())) from error

    def fail(self, error: BaseException) -> None:
        """Give it up: whatever is under way ends."""
        if not self.ended.done():
            self.ended.set_result(error)
        for call in [*self._calls]:
            call.cancel()

    async def close(self) -> None:
        """Let go of the socket; what was written leaves."""
        self.fail(Broken("The connection to NATS was closed."))
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
        """Close the descriptor without the loop: it is closed, or this is a forked child."""
        if (writer := self._writer) is not None:
            let_go(writer.transport)
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
        self.fail(self._last_error or Broken("NATS has closed the connection"))


#: Clients of a loop that is no more: collected, they would warn of it.
_abandoned: Final[list[Client]] = []
