"""The layer on its hub, within one process: who hosts, who takes over, what is told."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from channels.backends.local import connection as connection_module
from channels.backends.local import place as place_module
from channels.backends.local.place import Lock, find_place, listen
from channels.backends.local.transport import HubTransport
from channels.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidOption,
    MessageTooLarge,
)
from channels.layers import LocalChannelLayer
from channels.layers.registry import ChannelLayerManager

PATIENCE = 10.0
MakeLayer = Callable[..., LocalChannelLayer]


@pytest.fixture
def directory(short_path: Path) -> Path:
    return short_path


@pytest.fixture
async def make_layer(directory: Path) -> AsyncIterator[MakeLayer]:
    made: list[LocalChannelLayer] = []

    def make(**config: Any) -> LocalChannelLayer:
        made.append(LocalChannelLayer(**{"directory": directory, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.005)


async def get(layer: Any, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive(channel)


def transport_of(layer: LocalChannelLayer) -> HubTransport:
    transport = layer.node.transport
    assert isinstance(transport, HubTransport)
    return transport


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the log says of the connection, debugging aside."""
    return [
        (record.levelname, record.getMessage().partition(":")[0])
        for record in caplog.records
        if record.levelno >= logging.INFO
    ]


HANDED_OVER = (
    "INFO",
    "The channel layer's hub has ended; this process connects to the next one",
)
OUT_OF_REACH = ("WARNING", "The channel layer is out of reach and tries to reconnect")
CONNECTED = ("WARNING", "The channel layer is connected")


async def test_the_first_hosts_and_the_next_takes_over_without_a_gap(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "channels.layers")
    first, second = make_layer(), make_layer()
    await first.new_channel()
    channel = await second.new_channel()
    await second.group_add("room", channel)
    gaps: list[object] = []
    second.add_gap_listener(gaps.append)
    assert first.is_hub
    assert not second.is_hub
    await first.close()
    await second.group_send("room", {"type": "x"})
    assert await get(second, channel) == {"type": "x"}
    assert second.is_hub
    assert not gaps
    assert told(caplog) == [HANDED_OVER]
    assert second.statistics()["transport_handed_over"] == 1


async def test_a_hand_over_that_nobody_takes_is_an_outage(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "channels.layers")
    first, second = make_layer(), make_layer()
    await first.new_channel()
    await second.new_channel()
    transport = transport_of(second)
    monkeypatch.setattr(transport, "_try_to_host", transport._seek_later)
    await first.close()
    await until(lambda: OUT_OF_REACH in told(caplog), "the warning")
    monkeypatch.undo()
    await until(lambda: CONNECTED in told(caplog), "the next hub")
    assert told(caplog) == [HANDED_OVER, OUT_OF_REACH, CONNECTED]


async def test_a_hub_that_dies_is_a_gap(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "channels.layers")
    first, second = make_layer(), make_layer()
    await first.new_channel()
    channel = await second.new_channel()
    await second.group_add("room", channel)
    gaps: list[object] = []
    second.add_gap_listener(gaps.append)
    hub = transport_of(first).hub
    assert hub is not None
    # As a kill would have it: nothing is handed over.
    hub._say_farewell = lambda: None  # type: ignore[method-assign]
    hub.stop(PATIENCE)
    await second.group_send("room", {"type": "x"})
    assert await get(second, channel) == {"type": "x"}
    assert gaps == [None]
    # Of the first as well, which had its hub on a thread.
    assert sorted(told(caplog)) == [CONNECTED, CONNECTED, OUT_OF_REACH, OUT_OF_REACH]


async def test_the_hub_goes_on_while_its_process_is_blocked(
    make_layer: MakeLayer, directory: Path
) -> None:
    host = make_layer()
    assert host.adopt_loop()
    await host.new_channel()
    assert host.is_hub
    done = threading.Event()

    async def use() -> None:
        layer = LocalChannelLayer(directory=directory)
        assert layer.adopt_loop()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        assert await get(layer, channel) == {"type": "x"}
        await layer.close()
        done.set()

    other = threading.Thread(target=lambda: asyncio.run(use()))
    other.start()
    # This blocks the loop that the hub's process serves on.
    assert done.wait(PATIENCE)
    other.join()


async def test_the_loop_of_the_hubs_process_may_end(make_layer: MakeLayer, directory: Path) -> None:
    layers = []

    async def host() -> None:
        layer = LocalChannelLayer(directory=directory)
        layers.append(layer)
        assert layer.adopt_loop()
        await layer.new_channel()

    await asyncio.to_thread(lambda: asyncio.run(host()))
    (host_layer,) = layers
    other = make_layer()
    await other.send("q", {"type": "x"})
    assert host_layer.is_hub
    assert await get(host_layer, "q") == {"type": "x"}
    await host_layer.close()


async def test_a_reader_that_comes_before_the_welcome_is_served(
    make_layer: MakeLayer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.backends.local.server.SETTLE_SECONDS", PATIENCE)
    place = find_place("channels", directory)
    place.prepare()
    awaited = Lock.take(place.node("nawaited"))
    assert awaited is not None
    layer = make_layer(send_timeout=0.05)
    reading = asyncio.create_task(get(layer, "q"))
    demands = transport_of(layer)._demands
    await until(lambda: "q" in demands or reading.done(), "the demand")
    awaited.release()
    await until(lambda: layer.node.link.outbox.is_open, "the welcome")
    await layer.send("q", {"type": "x"})
    assert await reading == {"type": "x"}


async def test_a_removed_directory_is_made_again(
    make_layer: MakeLayer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.backends.local.server._TICK_SECONDS", 0.01)
    first = make_layer()
    channel = await first.new_channel()
    await first.group_add("room", channel)
    shutil.rmtree(find_place("channels", directory).directory)
    second = make_layer()
    await second.new_channel()

    async def arrives() -> bool:
        await second.group_send("room", {"type": "x"})
        try:
            async with asyncio.timeout(0.2):
                await first.receive(channel)
        except TimeoutError:
            return False
        return True

    async with asyncio.timeout(PATIENCE):
        while not await arrives():
            pass


async def test_a_lock_held_by_one_that_does_not_listen_is_named(
    make_layer: MakeLayer, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = find_place("channels", directory)
    place.prepare()
    lock = Lock.take(place.lock)
    assert lock is not None
    lock.write("4711")
    layer = make_layer(send_timeout=0.2)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("q", {"type": "x"})
    await until(lambda: "process 4711, does not listen" in caplog.text, "the log")
    lock.release()
    await until(lambda: layer.node.link.outbox.is_open, "it hosts")
    await layer.send("q", {"type": "x"})


async def test_a_hub_that_never_welcomes_is_named(
    make_layer: MakeLayer,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("channels.backends.local.transport.WELCOME_SECONDS", 0.05)
    monkeypatch.setattr("channels.backends.local.transport.PATIENCE_SECONDS", 0.1)
    place = find_place("channels", directory)
    place.prepare()
    lock = Lock.take(place.lock)
    assert lock is not None
    lock.write("4711")
    with listen(place):
        layer = make_layer(send_timeout=0.2)
        with pytest.raises(ChannelLayerUnavailable):
            await layer.send("q", {"type": "x"})
        await until(lambda: "process 4711, does not answer" in caplog.text, "the log")
    lock.release()


async def test_a_silent_hub_is_left_and_its_return_is_noticed(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_module, "PING_SECONDS", 0.05)
    caplog.set_level(logging.WARNING, "channels.layers")
    first, second = make_layer(), make_layer()
    await first.new_channel()
    await second.new_channel()
    hub = transport_of(first).hub
    assert hub is not None
    go_on = threading.Event()
    turn = hub._turn

    def halted(pause: float) -> None:
        go_on.wait(PATIENCE)
        turn(pause)

    hub._turn = halted  # type: ignore[method-assign]
    await until(lambda: "has not answered for" in caplog.text, "it is noticed")
    go_on.set()
    await until(lambda: second.node.link.outbox.is_open, "it is back")
    await second.send("q", {"type": "x"})
    assert await get(first, "q") == {"type": "x"}


async def test_who_runs_the_hub_says_how_long_a_message_may_be(make_layer: MakeLayer) -> None:
    first = make_layer(max_message_bytes=1024)
    await first.new_channel()
    second = make_layer()
    with pytest.raises(MessageTooLarge, match="give all processes one max_message_bytes"):
        await second.send("q", {"type": "x", "text": "x" * 200_000})
    await second.send("q", {"type": "x"})
    assert await get(first, "q") == {"type": "x"}


async def test_a_place_of_others_is_an_error_of_configuration(
    make_layer: MakeLayer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_place("channels", directory).directory.mkdir(mode=0o755)
    with pytest.raises(InvalidChannelLayerError, match="expected a directory of user"):
        await make_layer().send("q", {"type": "x"})


async def test_a_hub_of_another_user_gets_no_message(
    make_layer: MakeLayer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_layer()
    await first.new_channel()
    uid = os.geteuid()

    def other(_: Any) -> int:
        return uid + 1

    monkeypatch.setattr(place_module, "peer_uid", other)
    second = make_layer(send_timeout=0.2)
    with pytest.raises(ChannelLayerUnavailable):
        await second.send("q", {"type": "x"})
    monkeypatch.undo()


def test_it_is_found_under_its_names(directory: Path) -> None:
    for backend in ("channels.layers.LocalChannelLayer", "asgi_ipc.IPCChannelLayer"):
        config = {
            "prefix": "asgi",
            "message_memory": 1024 * 1024,
            "group_memory": 1024 * 1024,
            "expiry": 30,
            "group_expiry": 3600,
            "capacity": 10,
            "channel_capacity": {"x.*": 20},
            "directory": str(directory),
        }
        entry = {"BACKEND": backend, "CONFIG": config}
        manager = ChannelLayerManager()
        manager.configure({"default": entry})
        layer = manager["default"]
        assert isinstance(layer, LocalChannelLayer)
        assert transport_of(layer).options.message_memory == 1024 * 1024
        assert layer.capacity == 10


@pytest.mark.parametrize(
    ("config", "error", "told"),
    [
        ({"hosts": []}, InvalidChannelLayerError, "does not know hosts"),
        ({"message_memory": 1}, InvalidOption, "the least is 65536 bytes"),
        ({"prefix": 5}, InvalidChannelLayerError, "expected a string"),
    ],
)
def test_wrong_settings_are_told(
    directory: Path, config: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        LocalChannelLayer(directory=directory, **config)


def test_a_script_without_a_loop_hosts_and_hands_over_at_its_exit(directory: Path) -> None:
    script = (
        "import sys\n"
        "from channels.layers import LocalChannelLayer\n"
        "layer = LocalChannelLayer(directory=sys.argv[1])\n"
        "layer.sync.send('q', {'type': 'from a script'})\n"
        "assert layer.is_hub\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(directory)],
            env={"PYTHONPATH": ":".join(sys.path)},
            stderr=subprocess.PIPE,
            check=True,
            timeout=30,
        )
        assert done.stderr == b"", "a script's end is nothing to log"
    layer = LocalChannelLayer(directory=directory)
    for _ in range(2):
        assert layer.sync.receive("q", timeout=PATIENCE) == {"type": "from a script"}
    asyncio.run(layer.close())


def test_a_preloaded_hub_is_left_to_the_parent_by_forked_workers(directory: Path) -> None:
    """As with gunicorn's --preload: the layer is in use before the workers are forked."""
    script = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from channels.layers import LocalChannelLayer
layer = LocalChannelLayer(directory=sys.argv[1])
layer.sync.send("warm", {"type": "up"})
assert layer.is_hub
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        layer.sync.send("q", {"type": "x", "number": number})
        assert not layer.is_hub
        sys.exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert layer.is_hub
got = sorted(layer.sync.receive("q", timeout=10)["number"] for _ in range(3))
assert got == [0, 1, 2], got
"""
    subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        timeout=60,
    )
