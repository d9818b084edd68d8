"""Consumers in a worker, their sockets at an edge: as under a server, whatever the worker does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from channels.decoupled.edge import Edge
from channels.decoupled.options import EdgeOptions
from channels.decoupled.transport import LinkTransport
from channels.exceptions import ClientDisconnected, InvalidOption
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.types import Message, Receive, Scope, Send
from channels.layers import InMemoryChannelLayer, channel_layers
from tests.decoupled.house import house, of_connections
from tests.server.shell import Recorder, dial, eventually, request, serve, text
from tests.wire.peer import frame

pytestmark = pytest.mark.usefixtures("link")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """What the edge, the workers and the consumers have in common."""
    memory = InMemoryChannelLayer()
    monkeypatch.setattr(channel_layers, "backends", {"default": memory})
    return memory


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)


class SyncEcho(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data, bytes_data)


@pytest.mark.parametrize("consumer", [Echo, SyncEcho])
async def test_messages_go_there_and_back_in_order(consumer: Any) -> None:
    async with house() as here:
        await here.start_worker(consumer)
        async with dial(here.shell) as client:
            for n in range(200):
                client.send(text(f"{n}"), frame(0x2, b"%d" % n))
            for n in range(200):
                assert await client.read_frame() == (0x81, b"%d" % n)
                assert await client.read_frame() == (0x82, b"%d" % n)
        await here.until(connections=0, departed=0)


async def test_the_scope_is_the_server_s_own() -> None:
    served, there = Recorder(), Recorder()
    handshake = request(
        "Origin: http://localhost",
        "Cookie: sessionid=x",
        "Sec-WebSocket-Protocol: a, b",
        path="/chat/r%C3%BC/?q=1&q=%20",
        key="dGhlIHNhbXBsZSBub25jZQ==",
    )
    async with serve(served) as shell, dial(shell, handshake=handshake):
        pass
    async with house() as here:
        await here.start_worker(of_connections(there))
        async with dial(here.shell, handshake=handshake):
            pass
        await there.until_disconnected()
    (own,), (theirs,) = served.scopes, there.scopes
    for scope in (own, theirs):
        for ends in ("client", "server"):
            assert scope[ends].pop() > 0
        scope["extensions"].pop("channels.door", None)
    assert theirs == own


async def test_an_event_has_the_type_that_the_specification_gives() -> None:
    there = Recorder()
    async with house() as here:
        await here.start_worker(of_connections(there))
        async with dial(here.shell) as client:
            client.send(text("x"), frame(0x8, b"\x0f\xa1bye"))
            assert await client.read_frame() == (0x81, b"x")
        event = await there.until_disconnected()
    assert there.kinds == ["connect", "receive", "disconnect"]
    assert event == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


async def test_a_consumer_accepts_with_subprotocol_and_fields_and_closes_with_a_code() -> None:
    class Picky(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept("b", headers=[(b"x-room", b"1")])

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.close(4002, "enough")

    async with house() as here:
        await here.start_worker(Picky)
        async with dial(here.shell, "Sec-WebSocket-Protocol: a, b") as client:
            assert b"x-room: 1" in client.head.lower()
            assert b"sec-websocket-protocol: b" in client.head.lower()
            client.send(text("x"))
            assert await client.read_frame() == (0x88, b"\x0f\xa2enough")


class Refuses(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()


class Breaks(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        raise LookupError("no such room")


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 402, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"pay", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b" first"})


@pytest.mark.parametrize(("application", "status"), [(Refuses, 403), (Breaks, 500), (denies, 402)])
async def test_a_handshake_is_refused_as_the_application_says(
    application: Any, status: int
) -> None:
    async with house() as here:
        await here.start_worker(application)
        async with dial(here.shell, accepted=False) as client:
            assert await client.read_head() == status
        await here.until(connections=0, departed=0)


async def test_an_exception_after_accept_closes_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fails(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            raise LookupError("no such room")

    async with house() as here:
        await here.start_worker(Fails)
        async with dial(here.shell) as client:
            client.send(text("x"))
            assert await client.read_close() == 1011
    failed = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(failed) == 1, "the worker logs it, and nobody else does"


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_without_a_worker_the_client_is_told_to_come_again(kind: str) -> None:
    async with house(claim_timeout=0.1, http_claim_timeout=0.1, retry_after=7) as here:
        plain = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        handshake = None if kind == "websocket" else plain
        async with dial(here.shell, accepted=False, handshake=handshake) as client:
            assert await client.read_head() == 503
            assert b"retry-after: 7" in client.head.lower()
        assert here.edge.statistics()["offers_expired"] == 1
        await here.until(connections=0, offered=0)


async def test_a_full_queue_of_offers_is_said_at_once() -> None:
    layer = InMemoryChannelLayer(channel_capacity={"decoupled.offers": 1})
    async with house(layer=layer, claim_timeout=50.0) as here:
        async with dial(here.shell, accepted=False), dial(here.shell, accepted=False) as second:
            assert await second.read_head() == 503
        await here.until(connections=0, offered=0)


async def test_an_offer_that_was_lost_is_repeated(layer: InMemoryChannelLayer) -> None:
    async with (
        house(layer=layer, offer_again=0.05) as here,
        dial(here.shell, accepted=False) as client,
    ):
        # By a worker that died before it could claim.
        await layer.receive("decoupled.offers")
        await here.start_worker(Echo)
        assert await client.read_head() == 101


async def test_a_worker_takes_no_more_than_it_has_places(layer: InMemoryChannelLayer) -> None:
    async with house(layer=layer) as here:
        first = await here.start_worker(Echo, max_connections=1)
        async with dial(here.shell), dial(here.shell, accepted=False) as client:
            await here.until(offered=1)
            second = await here.start_worker(Echo, max_connections=1)
            assert await client.read_head() == 101
            assert first.statistics()["connections"] == second.statistics()["connections"] == 1


async def test_the_socket_is_left_unread_while_the_consumer_is_busy() -> None:
    go, handled = asyncio.Event(), list[str]()

    class Busy(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await go.wait()
            handled.append(text_data or "")
            await self.send(text_data)

    async with house(unacknowledged_events=8) as here:
        await here.start_worker(Busy)
        async with dial(here.shell) as client:
            client.send(*(text(f"{n}") for n in range(500)))
            # connect's is among them, if it is not acknowledged.
            await here.until(unacknowledged=8)
            for _ in range(50):
                await asyncio.sleep(0)
            assert here.edge.statistics()["unacknowledged"] == 8
            go.set()
            for n in range(500):
                assert await client.read_frame() == (0x81, b"%d" % n)
    assert handled == [f"{n}" for n in range(500)]


async def test_send_waits_while_the_client_does_not_read() -> None:
    sent = list[int]()

    class Flood(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            for n in range(400):
                await self.send(bytes_data=bytes(64 * 1024))
                sent.append(n)

    async with house() as here:
        await here.start_worker(Flood)
        async with dial(here.shell) as client:
            client.send(text("go"))
            await eventually(lambda: len(sent) > 4)
            before = -1
            while before != len(sent):
                before = len(sent)
                for _ in range(200):
                    await asyncio.sleep(0)
            # What the system, the server and the credit take is far less than all of it.
            assert len(sent) < 300
            for _ in range(400):
                got = await client.read_frame()
                assert got is not None
                assert len(got[1]) == 64 * 1024
        await eventually(lambda: len(sent) == 400)


async def test_a_client_that_has_gone_is_told_at_once_however_much_waits() -> None:
    told = asyncio.Event()

    class Slow(AsyncWebsocketConsumer):
        close_timeout = 0.01

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await asyncio.Event().wait()

        async def disconnect(self, code: int) -> None:
            told.set()

    async with house(unacknowledged_events=8) as here:
        await here.start_worker(Slow)
        async with dial(here.shell) as client:
            client.send(*(text(f"{n}") for n in range(30)))
            await here.until(unacknowledged=8)
        await asyncio.wait_for(told.wait(), 10)
        await here.until(connections=0)


async def test_a_send_to_a_client_that_has_gone_raises() -> None:
    raised = asyncio.get_running_loop().create_future()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "late"})
        except ClientDisconnected as error:
            raised.set_result(error)

    async with house() as here:
        await here.start_worker(application)
        async with dial(here.shell):
            pass
        await asyncio.wait_for(raised, 10)


async def test_groups_and_channels_of_the_layer_reach_consumers(
    layer: InMemoryChannelLayer,
) -> None:
    class Room(AsyncWebsocketConsumer):
        groups = ("room",)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

        async def said(self, message: Message) -> None:
            await self.send(message["text"])

    async with house(layer=layer) as here:
        await here.start_worker(Room, max_connections=1)
        await here.start_worker(Room, max_connections=1)
        async with dial(here.shell) as one, dial(here.shell) as two:
            one.send(text("hello"))
            assert await one.read_frame() == await two.read_frame() == (0x81, b"hello")


async def test_a_consumer_without_state_is_drained_and_then_closed_with_1012() -> None:
    codes = list[int]()

    class Noting(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with house() as here:
        worker = await here.start_worker(Noting, shutdown_timeout=0.05, close_spread=0.01)
        async with dial(here.shell) as client:
            client.send(text("x"))
            assert await client.read_frame() == (0x81, b"x")
            stopping = asyncio.create_task(here.stop_worker(worker))
            assert await client.read_close() == 1012
            await stopping
    assert codes == [1012]


async def test_while_it_drains_a_consumer_goes_on() -> None:
    async with house() as here:
        worker = await here.start_worker(Echo)
        async with dial(here.shell) as client:
            stopping = asyncio.create_task(here.stop_worker(worker))
            await eventually(lambda: worker._is_stopping)
            client.send(text("x"))
            assert await client.read_frame() == (0x81, b"x")
        await stopping


async def test_a_handshake_in_hand_goes_to_another_worker_when_its_own_stops() -> None:
    asked = asyncio.Event()

    class Hangs(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            asked.set()
            await asyncio.Event().wait()

    async with house() as here:
        worker = await here.start_worker(
            Hangs, shutdown_timeout=0.0, close_spread=0.0, close_timeout=0.05
        )
        async with dial(here.shell, accepted=False) as client:
            await asked.wait()
            await here.start_worker(Echo)
            await here.stop_worker(worker)
            assert await client.read_head() == 101


async def test_an_edge_that_stops_ends_its_consumers_with_1006() -> None:
    there = Recorder()
    async with house() as here:
        await here.start_worker(of_connections(there))
        async with dial(here.shell):
            await eventually(lambda: there.kinds == ["connect"])
            await here.edge.stop()
            assert (await there.until_disconnected())["code"] == 1006


async def test_what_no_owner_says_of_a_connection_is_dropped(
    layer: InMemoryChannelLayer,
) -> None:
    class Stranger:
        def on_message(self, peer: str, message: Message) -> None: ...
        def on_room(self, peer: str) -> None: ...
        def on_dead(self, peer: str) -> None: ...

    async with house(layer=layer) as here:
        await here.start_worker(Echo)
        async with dial(here.shell) as client:
            transport = LinkTransport(layer, "worker", EdgeOptions(), Stranger())
            await transport.start()
            assert here.edge._transport is not None
            said: dict[str, dict[str, Any]] = {
                "claim": {},
                "send": {"event": {"type": "websocket.send", "text": "forged"}},
                "ack": {"sequence": 1000},
                "release": {"sequence": 1000},
                "end": {"is_failed": True},
            }
            for kind, more in said.items():
                message = {"kind": kind, "id": 1, "generation": 1, **more}
                transport.post(here.edge._transport.inbox, message)
            await here.until(fenced=4, claims_void=1)
            client.send(text("x"))
            assert await client.read_frame() == (0x81, b"x")
            await transport.close(1)


def test_http_in_the_edge_s_process_needs_an_application() -> None:
    with pytest.raises(InvalidOption, match="application"):
        Edge(InMemoryChannelLayer(), EdgeOptions(http="edge"))


async def test_a_scope_of_another_type_is_none_for_an_edge() -> None:
    edge: Any = Edge(InMemoryChannelLayer())
    with pytest.raises(ValueError, match="'telnet'"):
        await edge({"type": "telnet"}, None, None)


class Adopted(InMemoryChannelLayer):
    """A layer that does its I/O on the loop of its owner, who must close it."""

    closed = 0

    def adopt_loop(self) -> bool:
        return True

    async def close(self) -> None:
        self.closed += 1
        await super().close()


async def test_an_edge_closes_the_layer_whose_loop_it_has_lent() -> None:
    layer = Adopted()
    edge = Edge(layer, EdgeOptions(heartbeat=0.3))
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.create_task(edge({"type": "lifespan"}, said.get, heard.put))
    said.put_nowait({"type": "lifespan.startup"})
    assert await heard.get() == {"type": "lifespan.startup.complete"}
    assert layer.closed == 0
    said.put_nowait({"type": "lifespan.shutdown"})
    assert await heard.get() == {"type": "lifespan.shutdown.complete"}
    await life
    assert layer.closed == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("drop_new", ["1", "2", "3"]),
        ("drop_old", ["1", "5", "6"]),
        ("latest", ["1", "6"]),
        ("close", ["1", 1013]),
    ],
)
async def test_more_of_the_socket_s_own_groups_than_may_wait_follows_the_rule(
    layer: InMemoryChannelLayer, rule: str, expected: list[Any]
) -> None:
    class Watching(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.channel_layer.group_add("news", self.socket_channel)
            await self.accept()

    sent: list[Any] = []
    gate = asyncio.Event()

    async def send(event: Message) -> None:
        if event["type"] == "websocket.send":
            sent.append(event["text"])
            await gate.wait()
        elif event["type"] == "websocket.close":
            sent.append(event.get("code"))

    # A server that is not ours may leave out what ASGI lets it.
    scope: Scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": []}
    said: asyncio.Queue[Message] = asyncio.Queue()
    said.put_nowait({"type": "websocket.connect"})
    async with house(layer=layer, group_capacity=2, group_overflow=rule) as here:
        await here.start_worker(Watching)
        serving = asyncio.create_task(here.edge(scope, said.get, send))
        await eventually(lambda: "news" in layer.node.local.hub.groups)
        await eventually(lambda: here.edge.statistics()["connections"])
        await layer.group_send("news", {"type": "websocket.send", "text": "1"})
        await eventually(lambda: sent == ["1"])
        for number in range(2, 7):
            await layer.group_send("news", {"type": "websocket.send", "text": f"{number}"})
        gate.set()
        await eventually(lambda: sent == expected)
        said.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serving
