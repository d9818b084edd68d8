"""The conformance suite over NATS."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from channels.layers import NatsChannelLayer
from channels.testing.layers import Features, LayerConformance
from tests.cluster.servers import OwnServer, nats_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNats(LayerConformance):
    #: Two senders' messages may reach two processes in different orders.
    features: ClassVar[Features] = Features(ordered_groups=False, queue_members=False)

    @pytest.fixture
    def layer_factory(self, server: OwnServer) -> Callable[..., Any]:
        url, prefix = f"nats://127.0.0.1:{server.port}", f"test-{uuid.uuid4().hex[:8]}"
        return lambda **config: NatsChannelLayer(url, prefix, **config)
