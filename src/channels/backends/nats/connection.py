"""NATS' protocol on one connection: all in order, nothing that waits.

Each message is handed on as it comes; `channels.backends.nats` says why that matters.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from channels.backends.descriptors import let_go
from channels.backends.nats.address import Address
from channels.backends.nats.credentials import read_credentials

logger = logging.getLogger("channels.layers")

#: Bytes that may wait to be written; a connection that holds more is stuck.
MAX_UNWRITTEN: Final = 16 * 1024 * 1024
#: Ping intervals without a sign of the server.
_SILENT_PINGS: Final = 2.5
_HEADERS: Final = b"NATS/1.0"
NO_RESPONDERS: Final = 503


class Broken(Exception):
    """A connection serves no more; the cause is in its text."""


@dataclass(slots=True)
class Message:
    """One that came.

    Attributes:
        status: Of a notice from the server itself; 0 for a message.
        subject: Where it was sent.
    """

    reply: str
    data: bytes
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""


class NatsConnection(asyncio.Protocol):
    """One connection; open when `opened` is done, over when `ended` is."""

    def __init__(self, address: Address, ping_interval: float, inbox: str) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        #: Its result says why.
        self.ended: asyncio.Future[Broken] = loop.create_future()
        self.max_payload = 1024 * 1024
        self._loop = loop
        self._address = address
        self._ping_interval = ping_interval
        self._inbox = inbox
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._out: list[bytes] = []
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._handlers: dict[int, Callable[[Message], None]] = {}
        self._requests: dict[str, asyncio.Future[Message]] = {}
        self._numbers = 0
        self._heard = loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Log in.

        Raises:
            Broken: If the server refuses.
        """
        info = await asyncio.shield(self.greeted)
        self.max_payload = int(info.get("max_payload") or self.max_payload)
        if self._address.tls is not None or info.get("tls_required"):
            await self._secure(bool(info.get("tls_required") or info.get("tls_available")))
        said: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "python",
            "version": "channels",
            "protocol": 1,
        }
        if self._address.credentials:
            # Read anew each time: it may have been replaced.
            said |= read_credentials(self._address.credentials).answer(info.get("nonce", ""))
        elif self._address.token:
            said["auth_token"] = self._address.token
        elif self._address.user:
            said["user"], said["pass"] = self._address.user, self._address.password
        self.write(b"CONNECT " + json.dumps(said).encode() + b"\r\n")
        self.subscribe(f"{self._inbox}.*", self._ignore)
        await self.barrier()

    async def _secure(self, is_offered: bool) -> None:
        address, context = self._address, self._address.tls
        if context is None or self._transport is None:
            raise Broken(f"the NATS server {address} asks for TLS: expected a URL tls://...")
        if not is_offered:
            raise Broken(f"the NATS server {address} offers no TLS, which tls:// asks for")
        try:
            self._transport = await self._loop.start_tls(
                self._transport, self, context, server_hostname=address.host
            )
        except ssl.SSLCertVerificationError as error:
            raise Broken(
                f"the certificate of the NATS server {address} is not trusted "
                f"({error.verify_message}): give an ssl_context that knows who signed it"
            ) from error
        except ssl.SSLError as error:
            raise Broken(f"TLS with the NATS server {address} failed: {error}") from error

    @property
    def next_number(self) -> int:
        """What the next call of `subscribe` returns."""
        return self._numbers + 1

    # Writing.

    def write(self, data: bytes) -> None:
        """Send this with all else of this turn of the loop."""
        if self.ended.done():
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > MAX_UNWRITTEN:
                self.fail(Broken("NATS does not take what is sent"))

    def publish(
        self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message."""
        if headers:
            lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
            head = b"%b\r\n%b\r\n" % (_HEADERS, lines.encode())
            sizes = f"{len(head)} {len(head) + len(data)}"
            verb = "HPUB"
        else:
            head, sizes, verb = b"", str(len(data)), "PUB"
        words = " ".join(word for word in (verb, subject, reply, sizes) if word)
        self.write(b"%b\r\n%b%b\r\n" % (words.encode(), head, data))

    def barrier(self) -> asyncio.Future[None]:
        """Done when the server has taken all that was sent before."""
        pong: asyncio.Future[None] = self._loop.create_future()
        pong.add_done_callback(_retrieve)
        if self.ended.done():
            pong.set_exception(self.ended.result())
        else:
            self._pongs.append(pong)
            self.write(b"PING\r\n")
        return pong

    def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[Message]:
        """Send a message that has an answer."""
        answer: asyncio.Future[Message] = self._loop.create_future()
        answer.add_done_callback(_retrieve)
        if self.ended.done():
            answer.set_exception(self.ended.result())
            return answer
        self._numbers += 1
        name = f"{self._inbox}.{self._numbers}"
        self._requests[name] = answer
        answer.add_done_callback(lambda _: self._requests.pop(name, None))
        self.publish(subject, data, name, headers)
        return answer

    def subscribe(self, subject: str, handler: Callable[[Message], None]) -> int:
        """Have what comes under a subject handled; returns a number for `unsubscribe`."""
        self._numbers += 1
        self._handlers[self._numbers] = handler
        self.write(f"SUB {subject} {self._numbers}\r\n".encode())
        return self._numbers

    def unsubscribe(self, number: int) -> None:
        """No more is sent; what is on its way is still handled."""
        self.write(f"UNSUB {number}\r\n".encode())
        self.barrier().add_done_callback(lambda _: self._handlers.pop(number, None))

    # The end.

    def fail(self, error: Broken) -> None:
        """The connection is over."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting: list[asyncio.Future[Any]] = [
            self.greeted,
            *self._pongs,
            *self._requests.values(),
        ]
        self._pongs.clear()
        for each in waiting:
            if not each.done():
                each.set_exception(error)
                each.exception()

    def abandon(self) -> None:
        """Let go without the loop."""
        transport, self._transport = self._transport, None
        if transport is not None:
            let_go(transport)

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By its verbs: uvloop's is none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        if self._timer is None:
            self._tick()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(Broken(f"the connection to NATS ended: {exc or 'closed by the server'}"))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._data += data
        try:
            start = 0
            while (end := self._take(start)) > start:
                start = end
            del self._data[:start]
        except (ValueError, IndexError) as error:
            self.fail(Broken(f"NATS sent what cannot be understood: {error}"))

    def _tick(self) -> None:
        silent = self._loop.time() - self._heard
        if silent > _SILENT_PINGS * self._ping_interval:
            self.fail(Broken(f"NATS has been silent for {silent:.1f} s"))
            return
        if self.greeted.done():
            self.barrier()
        self._timer = self._loop.call_later(self._ping_interval / 2, self._tick)

    # Reading.

    def _take(self, start: int) -> int:
        """Handle what begins at `start`; returns where it ends, `start` if more must come."""
        stop = self._data.find(b"\r\n", start)
        if stop < 0 or self.ended.done():
            if len(self._data) - start > 65_536:
                raise ValueError("a line without an end")
            return start
        line = self._data[start:stop].decode("utf-8", "replace")
        verb, _, rest = line.partition(" ")
        if verb in {"MSG", "HMSG"}:
            return self._take_message(verb, rest.split(), start, stop + 2)
        if verb == "PING":
            self.write(b"PONG\r\n")
        elif verb == "PONG":
            pong = self._pongs.popleft()
            if not pong.done():
                pong.set_result(None)
        elif verb == "INFO":
            if not self.greeted.done():
                self.greeted.set_result(json.loads(rest))
        elif verb == "-ERR" and "Permissions Violation" in rest:
            # Of one subject; the connection stands.
            logger.warning("NATS said %s", rest)
        elif verb == "-ERR":
            self.fail(Broken(f"NATS said {rest}"))
        return stop + 2

    def _take_message(self, verb: str, words: list[str], start: int, body: int) -> int:
        head = int(words[-2]) if verb == "HMSG" else 0
        total = int(words[-1])
        end = body + total
        if len(self._data) < end + 2:
            return start
        sizes = 2 if verb == "HMSG" else 1
        reply = words[2] if len(words) == 3 + sizes else ""
        status, headers = _read_headers(bytes(self._data[body : body + head]))
        message = Message(reply, bytes(self._data[body + head : end]), status, headers, words[0])
        if (answer := self._requests.get(words[0])) is not None:
            if not answer.done():
                answer.set_result(message)
        elif (handler := self._handlers.get(int(words[1]))) is not None:
            handler(message)
        return end + 2

    def _ignore(self, _: Message) -> None:
        """The answer to a request that nobody waits for any more."""


def _read_headers(data: bytes) -> tuple[int, dict[str, str]]:
    if not data:
        return 0, {}
    first, *lines = data.decode("utf-8", "replace").split("\r\n")
    words = first.split(" ")
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pairs = (line.partition(":") for line in lines if line)
    return status, {key.strip(): value.strip() for key, _, value in pairs}


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """An answer that nobody waits for is no error that nobody has seen."""
    if not answer.cancelled():
        answer.exception()


async def connect(
    address: Address, ping_interval: float, inbox: str, seconds: float
) -> NatsConnection:
    """Connect and log in.

    Raises:
        Broken: If the server refuses, or has not let us in within `seconds`.
        OSError: If there is no such server.
    """
    loop = asyncio.get_running_loop()
    connection: NatsConnection | None = None
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(
                lambda: NatsConnection(address, ping_interval, inbox), address.host, address.port
            )
            await connection.open()
    except TimeoutError:
        if connection is not None:
            connection.fail(Broken("NATS did not answer in time"))
        raise Broken("NATS did not answer in time") from None
    except BaseException:
        if connection is not None:
            connection.fail(Broken("given up"))
        raise
    return connection
