"""What the layer asks of JetStream: streams and consumers made on first use, storing, reading."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from channels.backends.nats.connection import NO_RESPONDERS, Message, NatsConnection
from channels.exceptions import ChannelFull, ChannelLayerUnavailable

logger = logging.getLogger("channels.layers")

#: JetStream's numbers for what went wrong.
_STORE_FAILED: Final = 10_077
_NAME_IN_USE: Final = 10_058
_STREAM_MISSING: Final = 10_059
_MESSAGE_MISSING: Final = 10_037
#: There is no leader at the moment.
_TRANSIENT: Final = frozenset({10_008, 10_009})
_BILLION: Final = 1_000_000_000
#: For how long a message that is sent again is known, in seconds.
_DUPLICATE_WINDOW: Final = 120.0
#: Seconds in which a call of the API is answered; it is silent where a stream has no leader.
_ANSWER_SECONDS: Final = 5.0
#: Seconds after which what was not confirmed is sent again.
_AGAIN_SECONDS: Final = 1.0
#: Seconds between two looks whether a new stream is known in the whole cluster.
_FIRST_PAUSE: Final = 0.01
_LAST_PAUSE: Final = 1.0
#: Messages read with one request.
_BATCH: Final = 200


def nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * _BILLION))


def words_of(reply: str) -> list[str]:
    """The last seven words of a delivered message's reply subject.

    They are: stream, consumer, how often delivered, sequence in the stream, sequence at the
    consumer, time, how many are pending.  Servers with a domain put its words before, and since
    2.10 one word may follow.
    """
    words = reply.split(".")
    start = 2 if len(words) == 9 else 4
    return words[start : start + 7]


def deliveries_of(message: Message) -> int:
    """How often a message was delivered, this time included."""
    return int(words_of(message.reply)[2])


def sequence_of(message: Message) -> int:
    """Its number in its stream."""
    return int(words_of(message.reply)[3])


class Silent(ChannelLayerUnavailable):
    """JetStream gives no answer."""


class JetStream:
    """JetStream over one connection.

    Args:
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        connection: NatsConnection,
        is_persistent: bool,
        replicas: int,
        spawn: Callable[..., asyncio.Task[Any]],
    ) -> None:
        self.connection = connection
        self.is_persistent = is_persistent
        self.replicas = replicas
        self._spawn = spawn
        self._made: dict[str, asyncio.Task[Any]] = {}
        #: What was sent and is not confirmed: when, and subject, data and headers.
        self._unconfirmed: dict[
            asyncio.Future[Message], tuple[float, str, bytes, Mapping[str, str]]
        ] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def ask(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A call of JetStream's API; an error is in the answer under "error".

        Raises:
            ChannelLayerUnavailable: If the servers have no JetStream, or it does not answer.
            Broken: If the connection breaks.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self.connection.request(f"$JS.API.{what}", json.dumps(body).encode())
        except TimeoutError:
            raise Silent(f"JetStream does not answer {what}.") from None
        if answer.status == NO_RESPONDERS:
            raise ChannelLayerUnavailable(
                "NATS does not offer JetStream, which channels that no process owns, and "
                "reliable=True, need: start the server with -js."
            )
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def insist(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `ask`, but while a cluster has nobody to answer it goes on asking."""
        while True:
            try:
                found = await self.ask(what, body)
            except Silent as error:
                logger.debug("%s", error)
                continue
            if _code(found) not in _TRANSIENT:
                return found
            await asyncio.sleep(_AGAIN_SECONDS / 2)

    # What there must be.

    async def have_stream(self, config: Mapping[str, Any], shrinks: bool = True) -> None:
        """See to it that a stream is there, with this configuration.

        Args:
            shrinks: Whether one that holds more than it may by now is made smaller.
        """
        name = config["name"]
        task = self._made.get(name)
        if task is None or (task.done() and _has_failed(task)):
            task = self._spawn(self._make_stream(config, shrinks), name=name, on_done=_seen)
            self._made[name] = task
        if not task.done():
            await asyncio.shield(task)

    async def _make_stream(self, given: Mapping[str, Any], shrinks: bool) -> None:
        name = given["name"]
        config = {
            "retention": "limits",
            "storage": "file" if self.is_persistent else "memory",
            "discard": "old",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
            "num_replicas": self.replicas,
            **given,
        }
        age = config["max_age"] or _BILLION * 86_400
        config["duplicate_window"] = min(nanoseconds(_DUPLICATE_WINDOW), age)
        answer = await self.insist(f"STREAM.CREATE.{name}", config)
        if _code(answer) == _NAME_IN_USE:
            found = await self.ask(f"STREAM.INFO.{name}", {})
            check(found)
            if not shrinks and found["state"]["messages"] > config["max_msgs"]:
                return
            answer = await self.insist(f"STREAM.UPDATE.{name}", config)
        check(answer)
        await self._await_interest(config["subjects"][0])

    async def _await_interest(self, subjects: str) -> None:
        """Wait until what is sent from here reaches a stream: in a cluster that takes a moment.

        Asked with a message that the stream must refuse.
        """
        pause = _FIRST_PAUSE
        while True:
            answer = await self.connection.request(
                subjects.replace(">", "=probe"), b"", {"Nats-Expected-Stream": "=none"}
            )
            if answer.status != NO_RESPONDERS:
                return
            if pause > _LAST_PAUSE:
                raise ChannelLayerUnavailable(f"JetStream does not take {subjects}.")
            await asyncio.sleep(pause)
            pause *= 2

    async def have_consumer(self, stream: str, name: str, config: Mapping[str, Any]) -> str:
        """See to it that a durable consumer is there; returns the subject to ask it on."""
        key = f"{stream} {name}"
        task = self._made.get(key)
        if task is None or (task.done() and _has_failed(task)):
            task = self._spawn(self._make_consumer(stream, name, config), name=key, on_done=_seen)
            self._made[key] = task
        if not task.done():
            await asyncio.shield(task)
        return next_subject(stream, name)

    async def _make_consumer(self, stream: str, name: str, given: Mapping[str, Any]) -> None:
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_ack_pending": -1,
            **given,
        }
        body = {"stream_name": stream, "config": config}
        try:
            check(await self.insist(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body))
        except ChannelLayerUnavailable:
            # Perhaps the stream was deleted; the next attempt makes it again.
            self._made.pop(stream, None)
            raise

    def forget(self, stream: str, consumer: str = "") -> None:
        """It is gone."""
        self._made.pop(f"{stream} {consumer}" if consumer else stream, None)

    # Messages.

    async def send(self, subject: str, data: bytes, headers: Mapping[str, str]) -> Message:
        """Send what a stream stores; again if that is not confirmed, so it must do no harm twice.

        A server that dies takes along what its stream has not shared yet, without a word.
        """
        answer = self.connection.request(subject, data, headers)
        loop = asyncio.get_running_loop()
        self._unconfirmed[answer] = (loop.time(), subject, data, headers)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_AGAIN_SECONDS / 2, self._sweep)
        try:
            return await answer
        finally:
            self._unconfirmed.pop(answer, None)

    def _sweep(self) -> None:
        """Send again what has waited for long; whichever answer comes first holds."""
        self._sweeper = None
        if not self._unconfirmed or self.connection.ended.done():
            return
        loop = asyncio.get_running_loop()
        limit = loop.time() - _AGAIN_SECONDS
        for answer, (sent, subject, data, headers) in list(self._unconfirmed.items()):
            if sent > limit:
                break
            # To the end of the table: it is in the order of time.
            del self._unconfirmed[answer]
            self._unconfirmed[answer] = (loop.time(), subject, data, headers)
            again = self.connection.request(subject, data, headers)
            again.add_done_callback(partial(_pass_on, answer))
        self._sweeper = loop.call_later(_AGAIN_SECONDS / 2, self._sweep)

    async def store(
        self,
        config: Mapping[str, Any],
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        full: str,
        shrinks: bool = True,
    ) -> dict[str, Any]:
        """Append to a stream, which is made if need be.

        Args:
            full: What to say if it is full.

        Raises:
            ChannelFull: If it is full.
        """
        making = self._made.get(config["name"])
        while True:
            if making is None or not making.done() or _has_failed(making):
                await self.have_stream(config, shrinks)
            answer = await self.send(subject, data, headers)
            if answer.status != NO_RESPONDERS:
                break
            self.forget(config["name"])
            making = None
        found: dict[str, Any] = json.loads(answer.data)
        if _code(found) == _STORE_FAILED and "maximum" in str(found["error"]):
            raise ChannelFull(full)
        check(found)
        return found

    async def last(self, stream: str, subject: str) -> dict[str, Any] | None:
        """The last message of a subject, as the API tells it; None if there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def is_stored(self, stream: str, sequence: int) -> bool:
        """Whether a stream still holds this message."""
        return await self._get(stream, {"seq": sequence}) is not None

    async def _get(self, stream: str, which: Mapping[str, Any]) -> dict[str, Any] | None:
        answer = await self.ask(f"STREAM.MSG.GET.{stream}", which)
        if _code(answer) in {_STREAM_MISSING, _MESSAGE_MISSING}:
            return None
        check(answer)
        found: dict[str, Any] = answer["message"]
        return found

    async def state(self, stream: str) -> dict[str, Any] | None:
        """What the API tells of a stream; None if there is none."""
        answer = await self.ask(f"STREAM.INFO.{stream}", {})
        if _code(answer) == _STREAM_MISSING:
            return None
        check(answer)
        return answer

    async def read(
        self, stream: str, start: int, until: int, take: Callable[[Message], None]
    ) -> None:
        """Read a stream from one number up to another, in order."""
        config = {
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "inactive_threshold": nanoseconds(30.0),
            "mem_storage": True,
        }
        body = {"stream_name": stream, "config": config}
        made = await self.ask(f"CONSUMER.CREATE.{stream}", body)
        check(made)
        name, connection = made["name"], self.connection
        inbox = f"_INBOX.{id(self):x}.{name}"
        got: asyncio.Queue[Message | None] = asyncio.Queue()

        def end(_: object) -> None:
            got.put_nowait(None)

        connection.ended.add_done_callback(end)
        number = connection.subscribe(inbox, got.put_nowait)
        try:
            while True:
                request = {"batch": _BATCH, "no_wait": True}
                connection.publish(next_subject(stream, name), json.dumps(request).encode(), inbox)
                for _ in range(_BATCH):
                    message = await self._next_read(got)
                    if message.status or sequence_of(message) > until:
                        return
                    take(message)
                    if sequence_of(message) == until:
                        return
        finally:
            connection.ended.remove_done_callback(end)
            connection.unsubscribe(number)
            connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"", f"{inbox}.gone")

    async def _next_read(self, got: asyncio.Queue[Message | None]) -> Message:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                message = await got.get()
        except TimeoutError:
            raise ChannelLayerUnavailable("JetStream does not answer a read.") from None
        if message is None:
            raise self.connection.ended.result()
        return message

    async def purge(self, stream: str, filter_subject: str = "") -> None:
        """Remove a stream's messages; nothing happens if there is none."""
        answer = await self.ask(
            f"STREAM.PURGE.{stream}", {"filter": filter_subject} if filter_subject else {}
        )
        if _code(answer) != _STREAM_MISSING:
            check(answer)

    async def names(self, subject: str) -> list[str]:
        """The streams that have a subject."""
        found = await self.ask("STREAM.NAMES", {"subject": subject})
        return list(found.get("streams") or [])


def next_subject(stream: str, consumer: str) -> str:
    """Where a consumer is asked for messages."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def _pass_on(answer: asyncio.Future[Message], found: asyncio.Future[Message]) -> None:
    if not (answer.done() or found.cancelled() or found.exception()):
        answer.set_result(found.result())


def _code(answer: Mapping[str, Any]) -> int:
    return int((answer.get("error") or {}).get("err_code", 0))


def check(answer: Mapping[str, Any]) -> None:
    """Raises `ChannelLayerUnavailable` if it is an error."""
    if error := answer.get("error"):
        raise ChannelLayerUnavailable(f"JetStream refused: {error.get('description', error)}")


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _seen(task: asyncio.Task[Any]) -> None:
    """Whoever waits for it is told its error."""
    if not task.cancelled():
        task.exception()
