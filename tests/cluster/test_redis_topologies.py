"""The Redis layers where Redis is more than one server, or speaks otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ChannelFull
from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from tests.cluster.history import PublisherLog, judge_group
from tests.cluster.servers import OwnServer, answers, free_port, redis_program, redis_server
from tests.cluster.sites import redis_command
from tests.cluster.traffic import Reader, every, publish, quiet, until
from tests.server.conftest import make_certificate

MakeLayer = Callable[..., Any]


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[Any] = []

    def make(hosts: list[Any], kind: Any = RedisChannelLayer, **config: Any) -> Any:
        made.append(kind(hosts, **config))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def exercise(near: Any, far: Any) -> None:
    """Groups, foreign members, queues as members, capacity, across all shards."""
    channel = await far.new_channel()
    groups = [f"room-{number}" for number in range(20)]
    for group in groups:
        await near.group_add(group, channel)
        await near.group_add(group, f"work-{group}")
    for group in groups:
        await near.group_send(group, {"type": group})
    async with asyncio.timeout(10):
        assert {(await far.receive(channel))["type"] for _ in groups} == set(groups)
        for group in groups:
            assert await far.receive(f"work-{group}") == {"type": group}
    for number in range(3):
        await near.send("full", {"type": "x", "number": number})
    with pytest.raises(ChannelFull):
        await far.send("full", {"type": "x"})
    async with asyncio.timeout(10):
        assert [(await far.receive("full"))["number"] for _ in range(3)] == [0, 1, 2]
    await near.group_add("room-0", "full")
    for _ in range(5):
        await far.group_send("room-0", {"type": "x"})
    assert far.statistics()["dropped_full_queue"] == 2
    await exercise_leases(near, far)
    await near.flush()
    await far.send("full", {"type": "new"})
    async with asyncio.timeout(10):
        assert await near.receive("full") == {"type": "new"}


async def exercise_leases(near: Any, far: Any) -> None:
    """Delays and leases of channels on all shards."""
    channels = [f"job-{number}" for number in range(20)]
    async with asyncio.timeout(10):
        for channel in channels:
            await near.send(channel, {"type": channel}, delay=0.2)
        for attempt in (1, 2):
            for channel in channels:
                message, lease = await far.receive_leased(channel)
                assert (message["type"], lease.attempts) == (channel, attempt)
                assert await (lease.ack() if attempt == 2 else lease.retry(delay=0.1))


KINDS = pytest.mark.parametrize("kind", [RedisChannelLayer, RedisPubSubChannelLayer])
LIMITS = {"channel_capacity": {"full": 3}, "delivery": {"job-*": "at-least-once"}}


@KINDS
async def test_several_servers_share_the_keys(
    make_layer: MakeLayer, tmp_path: Path, kind: Any
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(tmp_path / str(n))) for n in range(3)]
        hosts = [("127.0.0.1", server.port) for server in servers]
        near, far = make_layer(hosts, kind, **LIMITS), make_layer(hosts, kind, **LIMITS)
        await exercise(near, far)
        for server in servers:
            assert b"evalsha" in redis_command(server.port, "INFO commandstats"), (
                "each has its part"
            )
        await near.close()
        await far.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Three servers that form a Redis Cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis_server(folder / str(number), "--cluster-enabled", "yes", port=port)
            )
            for number, port in enumerate(cluster_ports(3))
        ]
        ports = [server.port for server in servers]
        for number, port in enumerate(ports):
            redis_command(port, f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
            first, last = 16384 * number // 3, 16384 * (number + 1) // 3
            slots = " ".join(map(str, range(first, last)))
            assert redis_command(port, f"CLUSTER ADDSLOTS {slots}") == b"+OK\r\n"
            redis_command(port, f"CLUSTER MEET 127.0.0.1 {ports[0]}")
        deadline = time.monotonic() + 20
        while not all(b"cluster_state:ok" in redis_command(port, "CLUSTER INFO") for port in ports):
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.05)
        yield ports


def cluster_ports(count: int) -> list[int]:
    """Free ports whose bus ports, 10,000 above, exist."""
    found: list[int] = []
    while len(found) < count:
        port = free_port()
        if port < 55_000 and port not in found:
            found.append(port)
    return found


@KINDS
async def test_a_redis_cluster(make_layer: MakeLayer, cluster: list[int], kind: Any) -> None:
    hosts = [f"redis://127.0.0.1:{port}" for port in cluster[:2]]
    options = {"cluster_shards": 6, "prefix": kind.__name__, **LIMITS}
    await exercise(make_layer(hosts, kind, **options), make_layer(hosts, kind, **options))
    for port in cluster:
        assert b"evalsha" in redis_command(port, "INFO commandstats"), "each has its part"


def sentinel(folder: Path, master_port: int) -> OwnServer:
    """A Sentinel that watches this master, alone in its opinion."""
    folder.mkdir()
    port = free_port()
    settings = [
        f"port {port}",
        "bind 127.0.0.1",
        f"sentinel monitor mymaster 127.0.0.1 {master_port} 1",
        "sentinel down-after-milliseconds mymaster 300",
        "sentinel failover-timeout mymaster 2000",
    ]
    (folder / "sentinel.conf").write_text("\n".join(settings))
    start = [redis_program(), str(folder / "sentinel.conf"), "--sentinel"]
    return OwnServer(start, folder, port, lambda: answers(port, b"PING\r\n", b"+PONG"))


async def test_a_failover_by_sentinel(make_layer: MakeLayer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(tmp_path / "master"))
        replica = stack.enter_context(
            redis_server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port))
        )
        await until(
            lambda: b"master_link_status:up" in redis_command(replica.port, "INFO replication"),
            "replication",
        )
        watch = stack.enter_context(sentinel(tmp_path / "sentinel", master.port))
        await until(
            lambda: (
                b"num-slaves\r\n$1\r\n1" in redis_command(watch.port, "SENTINEL MASTER mymaster")
            ),
            "the replica's discovery",
            30,
        )
        host = {"sentinels": [("127.0.0.1", watch.port)], "master_name": "mymaster"}
        config = {"capacity": 10_000, "send_timeout": 15.0}
        near, far = make_layer([host], **config), make_layer([host], **config)
        log = PublisherLog("p")
        async with Reader(near, group="room") as first, Reader(far, group="room") as second:

            async def fail() -> None:
                await until(lambda: len(log.outcomes) > 300, "traffic")
                master.kill()

            await asyncio.gather(
                publish(near, log, 1000, group="room", pause=every(10, 0.004)), fail()
            )
            await quiet([first.marks, second.marks], 1.0)
        verdict = judge_group([log], {"near": first.marks, "far": second.marks})
        assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
        # Replication lags behind: what the master had acknowledged in its last moment.
        assert len(verdict.lost) <= 40, verdict
        assert near.statistics()["given_up"] == 0
        await near.close()
        await far.close()


@KINDS
async def test_tls(make_layer: MakeLayer, tmp_path: Path, kind: Any) -> None:
    tls = make_certificate(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", tls.certificate, "--tls-key-file", tls.private_key]
    clients = ["--tls-auth-clients", "no"]
    plain = redis_server(tmp_path, "--tls-port", str(port), *files, *clients)
    with plain:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tls.certificate}"
        await exercise(make_layer([url], kind, **LIMITS), make_layer([url], kind, **LIMITS))


@KINDS
@pytest.mark.parametrize("way", ["resp3", "unix", "password", "database", "old"])
async def test_ways_to_speak_to_one_server(
    make_layer: MakeLayer, tmp_path: Path, kind: Any, way: str
) -> None:
    path = tmp_path / "socket"
    options = {
        "unix": ["--unixsocket", str(path)],
        "old": ["--rename-command", "INFO", ""],
    }
    with redis_server(tmp_path, *options.get(way, [])) as server:
        address = f"127.0.0.1:{server.port}"
        host: Any = {
            "resp3": f"redis://{address}?protocol=3",
            "unix": f"unix://{path}",
            "password": {"address": ("127.0.0.1", server.port), "password": "secret"},
            "database": {"host": "127.0.0.1", "port": server.port, "db": 3},
        }.get(way, f"redis://{address}")
        if way == "password":
            redis_command(server.port, "CONFIG SET requirepass secret")
        await exercise(make_layer([host], kind, **LIMITS), make_layer([host], kind, **LIMITS))
