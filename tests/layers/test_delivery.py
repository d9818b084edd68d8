"""What `delivery` in CONFIG may say, and what is said of what it may not."""

import re
from typing import Any

import pytest

from channels.exceptions import InvalidChannelLayerError, InvalidOption
from channels.layers import BaseChannelLayer, InMemoryChannelLayer
from channels.layers.delivery import Delivery
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer, LoopbackTransport


def test_the_first_pattern_that_matches_holds() -> None:
    layer = InMemoryChannelLayer(
        delivery={
            "mail.bulk": "at-most-once",
            "mail.*": {"max_attempts": 2, "dead_letter": None},
            re.compile("thumb"): "at-least-once",
            "own": Delivery(visibility_timeout=5),
        }
    )
    assert layer.delivery_of("mail.bulk") is None
    assert layer.delivery_of("mail.one") == Delivery(max_attempts=2, dead_letter=None)
    assert layer.delivery_of("thumbnails") == Delivery()
    assert layer.delivery_of("own") == Delivery(visibility_timeout=5)
    assert layer.delivery_of("other") is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("at-least-once", "expected a dictionary from patterns"),
        ({"x": "exactly-once"}, "delivery['x']='exactly-once': expected 'at-least-once'"),
        ({"x": {"attempts": 3}}, "some of visibility_timeout, max_attempts"),
        ({"x": {"max_attempts": 0}}, "delivery['x']: max_attempts=0: the least is 1 attempts"),
        ({"x": {"dead_letter": "no spaces"}}, "dead_letter='no spaces': expected the name"),
        ({"x": {"dead_letter": "specific!own"}}, "without '!'"),
        ({3: "at-least-once"}, "has the key 3"),
    ],
)
def test_what_cannot_be_understood(given: Any, said: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=re.escape(said)):
        InMemoryChannelLayer(delivery=given)


async def test_a_backend_that_cannot_delay_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = type(LoopbackTransport.capabilities)()
    monkeypatch.setattr(LoopbackTransport, "capabilities", plain)
    layer = LoopbackChannelLayer(LoopbackBroker())
    with pytest.raises(InvalidChannelLayerError, match="cannot delay a message for 'jobs'"):
        await layer.send("jobs", {"type": "x"}, delay=1)
    await layer.send("jobs", {"type": "x"}, delay=0)
    own = await layer.new_channel()
    await layer.send(own, {"type": "x"}, delay=0.01)
    assert await layer.receive(own) == {"type": "x"}
    await layer.close()


async def test_a_backend_whose_groups_take_no_queues_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = type(LoopbackTransport.capabilities)()
    monkeypatch.setattr(LoopbackTransport, "capabilities", plain)
    layer = LoopbackChannelLayer(LoopbackBroker())
    for change in (layer.group_add, layer.group_discard):
        with pytest.raises(InvalidChannelLayerError, match="cannot make 'jobs' a member"):
            await change("room", "jobs")
    await layer.close()


async def test_a_layer_of_another_package_need_not_know_delays() -> None:
    class Plain(BaseChannelLayer):
        async def send(self, channel: str, message: dict[str, Any]) -> None:
            self.sent = (channel, message)

    layer = Plain()
    await layer.send("jobs", {"type": "x"})
    assert layer.sent == ("jobs", {"type": "x"})


def test_the_pause_grows_up_to_a_bound() -> None:
    delivery = Delivery(retry_delay=1, max_retry_delay=5)
    assert [delivery.pause_after(attempts) for attempts in (1, 2, 3, 4, 5000)] == [1, 2, 4, 5, 5]
    with pytest.raises(InvalidOption):
        Delivery(retry_delay=-1)
