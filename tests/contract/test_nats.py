"""The conformance suite over NATS."""

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from channels.layers import NatsChannelLayer
from channels.testing.layers import Broker, Features, LayerConformance
from tests.cluster.servers import OwnServer, nats_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


def broker_of(server: OwnServer) -> Broker:
    prefix = f"test-{uuid.uuid4().hex[:8]}"

    def make(address: tuple[str, int], **config: Any) -> NatsChannelLayer:
        config = {"ack_wait": 3.0, **config}
        return NatsChannelLayer("nats://{}:{}".format(*address), prefix, **config)

    return Broker(("127.0.0.1", server.port), make, {"ping_interval": 0.4})


class TestNats(LayerConformance):
    #: Two senders' messages may reach two processes in different orders.
    features: ClassVar[Features] = Features(
        ordered_groups=False,
        reconnect_window=False,
        queue_members=False,
        queue_ages=False,
        queue_once=False,
        exact_attempts=False,
        leases=True,
    )
    cancelled_readers = 400

    @pytest.fixture
    def broker(self, server: OwnServer) -> Broker:
        return broker_of(server)
