"""The layer on a cluster of two RabbitMQ nodes, one of which goes down and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers import RabbitMQChannelLayer
from tests.cluster.servers import OwnServer, free_port, program, rabbitmq_server
from tests.cluster.traffic import beside, until

PATIENT = 60.0


class Cluster:
    """Two nodes, of which `second` may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        mapper = free_port()
        names = [f"{each}{mapper}@127.0.0.1" for each in ("first", "second")]
        nodes = "cluster_formation.classic_config.nodes"
        settings = [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"{nodes}.{number} = {name}" for number, name in enumerate(names, 1)),
        ]
        # Of its own, so that it outlives the node that is killed.
        command = [program("epmd"), "-port", str(mapper), "-address", "127.0.0.1"]
        self.mapper = OwnServer(command, folder / "mapper", mapper, lambda: True)
        self.first, self.second = (
            rabbitmq_server(folder / name, *settings, mapper=mapper, name=name, home=folder)
            for name in names
        )

    def layer(self, *nodes: OwnServer, **config: Any) -> RabbitMQChannelLayer:
        urls = [f"amqp://guest:guest@127.0.0.1:{node.port}" for node in nodes]
        layer = RabbitMQChannelLayer(urls, persistent=True, **config)
        layer.adopt_loop()
        return layer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    with made.mapper, made.first, made.second:
        yield made


@pytest.fixture
async def layers(cluster: Cluster) -> AsyncIterator[list[RabbitMQChannelLayer]]:
    """One on the node that stays, one on the other, and one of little patience."""
    made = [
        cluster.layer(cluster.first, send_timeout=PATIENT),
        cluster.layer(cluster.second, cluster.first, send_timeout=PATIENT),
        cluster.layer(cluster.first, send_timeout=2.0),
    ]
    yield made
    for layer in made:
        await layer.close()


@pytest.mark.timeout(300)  # three starts of RabbitMQ
async def test_a_node_of_the_cluster_goes_down_and_comes_back(
    cluster: Cluster, layers: list[RabbitMQChannelLayer]
) -> None:
    near, far, hasty = layers
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    # Whoever asks first has the queue at its own node.
    await far.send("work", {"type": "before"})
    channel = await far.new_channel()
    await far.group_add("room", channel)

    await asyncio.to_thread(cluster.second.kill)
    await until(lambda: gaps == [None], "the loss of the inbox is told", PATIENT)
    await near.group_send("room", {"type": "to the group"})
    await near.send(channel, {"type": "to the channel"})
    got = [(await receive(far, channel))["type"] for _ in range(2)]
    assert got == ["to the group", "to the channel"]
    with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
        await hasty.send("work", {"type": "in vain"})
    await near.send("other", {"type": "beside it"})
    assert (await receive(far, "other"))["type"] == "beside it"

    taken: list[str] = []

    async def read() -> None:
        while True:
            taken.append((await far.receive("work"))["type"])

    sending = asyncio.create_task(near.send("work", {"type": "meanwhile"}))
    async with beside(read()):
        await asyncio.sleep(0.2)
        assert not sending.done(), "it waits for the node"
        await asyncio.to_thread(cluster.second.start)
        await sending
        await until(lambda: len(taken) == 2, "what was there, and what waited", PATIENT)
    assert sorted(taken) == ["before", "meanwhile"]
    assert gaps == [None]


async def receive(layer: RabbitMQChannelLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENT):
        return await layer.receive(channel)
