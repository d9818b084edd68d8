"""The conformance suite over Redis, by inboxes and by publish and subscribe."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from channels.testing.layers import Features, LayerConformance
from tests.cluster.servers import redis_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server(folder) as server:
        yield f"redis://127.0.0.1:{server.port}"


class TestRedis(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)

    @pytest.fixture
    def layer_factory(self, url: str) -> Callable[..., Any]:
        prefix = f"test-{uuid.uuid4().hex}"
        return lambda **config: RedisChannelLayer([url], prefix, **config)


class TestRedisPubSub(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)

    @pytest.fixture
    def layer_factory(self, url: str) -> Callable[..., Any]:
        prefix = f"test-{uuid.uuid4().hex}"
        return lambda **config: RedisPubSubChannelLayer([url], prefix, **config)
