"""Scraped over a real server: what was sent, dropped, refused and cut shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from django.test import RequestFactory, override_settings
from django.urls import path, re_path
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from channels.fanout.delivery import Member
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.limits import Limits
from channels.kit.mailbox import Mailbox, MailboxBounds, Overflow
from channels.kit.types import Receive, Scope, Send
from channels.layers import BaseChannelLayer, get_channel_layer
from channels.metrics import ChannelsCollector, metrics_app, metrics_view
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.server import Server, ServerOptions, parse_endpoint
from channels.server.counts import MOST_LABELS, OTHER, ServerCounts
from channels.server.loop_lag import LoopLag
from tests.cluster.traffic import until


class Page:
    """A page of metrics, as Prometheus understands it."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """0 for what is not there: it has not been counted yet."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)


class Echo(AsyncWebsocketConsumer):
    groups = ("room",)

    async def news(self, event: Any) -> None:
        """Handles a message of the layer."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "close":
            await self.close(4321)
        elif text_data == "fail":
            raise LookupError("as it was told")
        else:
            await self.send(text_data)


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("as it was told")


@pytest.fixture(autouse=True)
def layers() -> Iterator[None]:
    """The settings' layers, unused."""
    configs = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=configs):
        yield


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    route: Any = path
    http = [route("metrics", metrics_app()), route("broken", broken)]
    socket = [route("echo", Echo.as_asgi())]
    application = ProtocolTypeRouter({"http": URLRouter(http), "websocket": URLRouter(socket)})
    options = ServerOptions(limits=Limits(max_connections=3))
    server = Server(application, [parse_endpoint("tcp:port=0:interface=127.0.0.1")], options)
    await server.start()
    yield server
    await server.stop(1)


def address(server: Server) -> str:
    host, port = server.addresses[0]
    return f"{host}:{port}"


async def scrape(server: Server) -> Page:
    async with httpx.AsyncClient(base_url=f"http://{address(server)}") as client:
        response = await client.get("/metrics", headers={"accept": "text/plain"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Page(response.text)


def collected() -> Page:
    """The page without a server."""
    response = metrics_view(RequestFactory().get("/metrics"))
    assert response["content-type"].startswith("text/plain")
    return Page(response.content.decode())


async def test_what_a_server_did(server: Server) -> None:
    before = await scrape(server)
    url = f"ws://{address(server)}"
    async with connect(f"{url}/echo") as one, connect(f"{url}/echo") as two:
        await one.send("hello")
        assert await one.recv() == "hello"
        during = await scrape(server)
        await two.send("close")
        await two.wait_closed()
    with pytest.raises(InvalidStatus):
        await connect(f"{url}/elsewhere")
    async with httpx.AsyncClient(base_url=f"http://{address(server)}") as client:
        assert (await client.get("/broken")).status_code == 500
    async with connect(f"{url}/echo") as failing:
        await failing.send("fail")
        with pytest.raises(ConnectionClosed):
            await failing.recv()
    after = await scrape(server)

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert more("channels_server_websockets_total") == 3
    assert more("channels_server_websockets_closed_total", code="1000") == 1
    assert more("channels_server_websockets_closed_total", code="4321") == 1
    assert more("channels_server_websockets_closed_total", code="1011") == 1
    assert more("channels_server_websockets_refused_total", status="403") == 1
    assert more("channels_server_responses_total", status="500") == 1
    assert more("channels_server_responses_total", status="200") == 2
    assert more("channels_server_application_failures_total") == 2
    assert more("channels_server_connections_total") == 7
    opened = "channels_server_open_websockets"
    assert during.value(opened) - before.value(opened) == 2
    await until(lambda: collected().value(opened) == before.value(opened), "all are closed")
    assert after.types["channels_server_open_websockets"] == "gauge"
    assert after.types["channels_server_websockets"] == "counter"


async def test_times_of_handlers_and_of_messages_on_their_way(server: Server) -> None:
    before = await scrape(server)
    layer = get_channel_layer()
    async with connect(f"ws://{address(server)}/echo") as one:
        await one.send("hello")
        await one.recv()
        await layer.group_send("room", {"type": "news", "id": 1})
        await one.send("hello")
        await one.recv()
        # Whoever sends can make up types: they are no labels.
        await layer.group_send("room", {"type": "made.up"})
        with pytest.raises(ConnectionClosed):
            await one.recv()
    after = await scrape(server)

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    handled, sent = "channels_consumer_handler_seconds", "channels_layer_delivery_seconds"
    assert more(f"{handled}_count", consumer="Echo", handler="websocket_receive") == 2
    assert more(f"{handled}_count", consumer="Echo", handler="news") == 1
    assert more(f"{handled}_bucket", consumer="Echo", handler="news", le="+Inf") == 1
    assert more(f"{handled}_count", consumer="Echo", handler="none") == 1
    assert not any("made_up" in dict(labels).values() for _, labels in after.samples)
    assert more(f"{sent}_count", consumer="Echo") == 2
    assert more(f"{sent}_bucket", consumer="Echo", le="1.0") == 2
    assert after.types[handled] == after.types[sent] == "histogram"


async def test_the_loops_lag_is_seen() -> None:
    lag = LoopLag()
    lag.follow(asyncio.get_running_loop())
    ChannelsCollector()
    seen = "channels_event_loop_lag_seconds_count"
    before = collected().value(seen)
    await until(lambda: collected().value(seen) > before, "the lag was observed")
    lag.stop()


async def test_connections_over_the_bound(server: Server) -> None:
    before = collected().value("channels_server_connections_refused_total")
    host, port = server.addresses[0]
    held = [await asyncio.open_connection(host, port) for _ in range(3)]
    reader, writer = await asyncio.open_connection(host, port)
    assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
    for _, each in [*held, (reader, writer)]:
        each.close()
    assert collected().value("channels_server_connections_refused_total") == before + 1


async def test_what_a_layer_did(server: Server) -> None:
    layer = get_channel_layer()
    async with connect(f"ws://{address(server)}/echo") as one:
        await one.send("hello")
        await one.recv()
        await layer.group_send("room", {"type": "websocket.send", "text": "to all"})
        assert await one.recv() == "to all"
        page = await scrape(server)
    assert page.value("channels_layer_group_sent_total", layer="default") == 1
    assert page.value("channels_layer_delivered_as_frames_total", layer="default") == 1
    assert page.value("channels_layer_groups", layer="default") == 1
    assert page.value("channels_layer_connected", layer="default") == 1
    backend = "channels.backends.memory.layer.InMemoryChannelLayer"
    assert page.value("channels_layer_info", layer="default", backend=backend) == 1


def dropped(reason: str) -> float:
    return collected().value("channels_layer_dropped_total", layer="default", reason=reason)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [("drop_new", "full"), ("close", "full"), ("drop_old", "displaced"), ("latest", "displaced")],
)
async def test_what_a_full_mailbox_drops_by_every_rule(rule: Overflow, reason: str) -> None:
    layer = get_channel_layer()
    mailbox, channel = Mailbox(MailboxBounds(capacity=3, overflow=rule)), await layer.new_channel()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    await layer.group_add("room", channel)
    for _ in range(10):
        await layer.group_send("room", {"type": "x"})
    assert dropped(reason) == 10 - mailbox.layer_size
    # What it has counted, and what nobody will take, is known when it has gone, too.
    waiting = mailbox.layer_size
    assert collected().value("channels_layer_waiting", layer="default") == waiting
    layer.detach(channel)
    assert dropped(reason) == 10 - waiting
    assert dropped("unread") == waiting


async def test_what_expires_in_a_consumers_mailbox_and_in_an_unread_channel() -> None:
    layer = get_channel_layer()
    now, unread = 0.0, await layer.new_channel()
    mailbox, channel = Mailbox(clock=lambda: now), await layer.new_channel()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    layer.expiry = 0.01
    await layer.send(channel, {"type": "x"})
    await layer.send(unread, {"type": "x"})
    now = float("inf")
    assert mailbox.get_layer_nowait() is None
    assert dropped("expired") == 1
    await until(lambda: layer.node.local.sweep() and dropped("expired") == 2, "the sweep")
    layer.detach(channel)
    assert dropped("expired") == 2


async def test_drops_are_said_in_one_line_in_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = get_channel_layer()
    mailbox, channel = (
        Mailbox(MailboxBounds(capacity=1, overflow="latest")),
        await layer.new_channel(),
    )
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    for _ in range(500):
        await layer.send(channel, {"type": "x"})
    await layer.close()
    lines = [each.getMessage() for each in caplog.records if "has dropped" in each.getMessage()]
    assert 1 <= len(lines) <= 3, lines
    assert "dropped_displaced" in lines[0]


class Strange(BaseChannelLayer):
    """A third party's."""

    def __init__(self, statistics: Callable[[], Any]) -> None:
        super().__init__()
        self.statistics = statistics


def page_of(*layers: Any) -> Page:
    registry = CollectorRegistry()
    named = {f"layer-{number}": layer for number, layer in enumerate(layers)}
    registry.register(ChannelsCollector(lambda: named))
    return Page(render(registry))


def render(registry: CollectorRegistry) -> str:
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


def test_strange_statistics_are_handed_on_and_broken_ones_cost_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Any:
        raise LookupError("as it was told")

    spins = {"spins-per s": 5, "sent": 2, "name": "x", "is": True, "dropped_of_mine": 1}
    page = page_of(Strange(lambda: spins), Strange(fail), object())
    assert page.value("channels_layer_spins_per_s", layer="layer-0") == 5
    assert page.types["channels_layer_spins_per_s"] in {"unknown", "untyped"}
    assert page.value("channels_layer_sent_total", layer="layer-0") == 2
    assert page.value("channels_layer_dropped_total", layer="layer-0", reason="of_mine") == 1
    assert not any("name" in name or name.endswith("_is") for name, _ in page.samples)
    assert page.value("channels_layer_info", layer="layer-2", backend="builtins.object") == 1
    assert "'layer-1' cannot be read" in caplog.text


def test_two_parts_that_drop_for_one_reason_are_added() -> None:
    counts = {"dropped_full": 2, "dropped_full_queue": 3, "transport_hub_dropped_full": 4}
    page = page_of(Strange(lambda: counts))
    assert page.value("channels_layer_dropped_total", layer="layer-0", reason="full") == 9


def test_clients_choose_no_endless_number_of_labels() -> None:
    counts = ServerCounts()
    for code in range(3000, 5000):
        counts.on_websocket_closed(code)
    assert len(counts.websockets_closed) == MOST_LABELS + 1
    assert counts.websockets_closed[OTHER] == 2000 - MOST_LABELS
    counts.on_access("http", None)
    assert counts.responses["none"] == 1


async def test_methods_and_forms(server: Server) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address(server)}") as client:
        head = await client.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert (await client.post("/metrics")).status_code == 405
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        assert (await client.get("/metrics", headers=accept)).text.endswith("# EOF\n")
    assert metrics_view(RequestFactory().post("/metrics")).status_code == 405


async def test_a_websocket_at_the_metrics_is_a_mistake_in_the_routing() -> None:
    async def nothing(*_: Any) -> Any:
        return None

    with pytest.raises(ValueError, match="answers HTTP only: found 'websocket'"):
        await metrics_app()({"type": "websocket"}, nothing, nothing)


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try:\n    import channels.metrics\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert "pip install prometheus-client" in done.stdout


def names(families: Iterable[Any]) -> list[str]:
    return [family.name for family in families]


def test_the_collector_can_join_a_registry_that_asks_for_descriptions() -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ChannelsCollector())
    assert "channels_server_connections" in names(registry.collect())


urlpatterns = [re_path(r"^metrics$", metrics_view)]


def test_the_view_by_its_url(client: Any) -> None:
    with override_settings(ROOT_URLCONF=__name__):
        assert b"channels_server_connections_total" in client.get("/metrics").content
