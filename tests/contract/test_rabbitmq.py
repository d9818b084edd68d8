"""The conformance suite over RabbitMQ."""

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from channels.layers import RabbitMQChannelLayer
from channels.testing.layers import Features, LayerConformance
from tests.cluster.servers import OwnServer


class TestRabbitMQ(LayerConformance):
    #: Two senders' messages may reach two processes in different orders.
    features: ClassVar[Features] = Features(ordered_groups=False)

    @pytest.fixture
    def layer_factory(self, rabbitmq: OwnServer) -> Callable[..., Any]:
        url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"
        prefix = f"test-{uuid.uuid4().hex[:8]}"
        return lambda **config: RabbitMQChannelLayer(url, prefix, **config)
