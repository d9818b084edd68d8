"""The conformance suite over RabbitMQ."""

import uuid
from typing import Any, ClassVar

import pytest

from channels.layers import RabbitMQChannelLayer
from channels.testing.layers import Broker, Features, LayerConformance
from tests.cluster.servers import OwnServer


class TestRabbitMQ(LayerConformance):
    #: Two senders' messages may reach two processes in different orders; queues are at least once.
    features: ClassVar[Features] = Features(
        ordered_groups=False,
        queue_members=False,
        queue_ages=False,
        queue_once=False,
        leases=True,
    )

    @pytest.fixture
    def broker(self, rabbitmq: OwnServer) -> Broker:
        prefix = f"test-{uuid.uuid4().hex[:8]}"

        def make(address: tuple[str, int], **config: Any) -> RabbitMQChannelLayer:
            url = "amqp://guest:guest@{}:{}/".format(*address)
            return RabbitMQChannelLayer(url, prefix, **config)

        return Broker(("127.0.0.1", rabbitmq.port), make, {"heartbeat": 1})
