"""The conformance suite over Redis, by inboxes and by publish and subscribe."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from channels.testing.layers import Broker, Features, LayerConformance
from tests.cluster.servers import OwnServer, redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def broker_of(kind: Callable[..., Any], server: OwnServer) -> Broker:
    prefix = f"test-{uuid.uuid4().hex}"

    def make(address: tuple[str, int], **config: Any) -> Any:
        return kind(["redis://{}:{}".format(*address)], prefix, **config)

    return Broker(("127.0.0.1", server.port), make, {"answer_timeout": 0.4, "lease": 3.0})


class TestRedis(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    forgeries = 10_000

    @pytest.fixture
    def broker(self, server: OwnServer) -> Broker:
        return broker_of(RedisChannelLayer, server)


class TestRedisPubSub(LayerConformance):
    features: ClassVar[Features] = Features(
        delays=True, leases=True, reconnect_window=False, any_group_name=True
    )

    @pytest.fixture
    def broker(self, server: OwnServer) -> Broker:
        return broker_of(RedisPubSubChannelLayer, server)
