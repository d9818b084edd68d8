"""The conformance suite of channel layers: what every backend must do, ours or a third party's.

    import pytest
    from channels.testing.layers import Features, LayerConformance

    class TestMyLayer(LayerConformance):
        features = Features(expiry=False)

        @pytest.fixture
        def layer_factory(self):
            prefix = uuid.uuid4().hex
            return lambda **config: MyChannelLayer(prefix=prefix, **config)

The one fixture gives a function that makes a layer.  Layers made by it within one test are the
same layer on several processes: they share their backend and prefix.  `config` holds the general
options: expiry, group_expiry, capacity, channel_capacity.

A class with the fixture `broker` in its place gets the cases that break connections, too: see
`Broker`.  It needs pytest and pytest-asyncio.
"""

from channels.testing.layers.base import Broker, ConformanceBase, Features, MakeLayer
from channels.testing.layers.chaos import ChaosCases
from channels.testing.layers.delivery import DelayCases, LeaseCases
from channels.testing.layers.groups import GroupCases
from channels.testing.layers.hostile import HostileCases
from channels.testing.layers.life import LifeCases
from channels.testing.layers.members import MemberCases
from channels.testing.layers.messages import MessageCases
from channels.testing.layers.queues import QueueCases
from channels.testing.layers.sealed import SealedCases

__all__ = ["Broker", "Features", "LayerConformance", "MakeLayer"]


class LayerConformance(
    MessageCases,
    QueueCases,
    GroupCases,
    MemberCases,
    LifeCases,
    DelayCases,
    LeaseCases,
    SealedCases,
    HostileCases,
    ChaosCases,
):
    """All cases; what a layer has not is said in `features` and skipped with its reason."""

    __test__ = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__test__ = True


assert issubclass(LayerConformance, ConformanceBase), "each case class brings the fixtures along"
