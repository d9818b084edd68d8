"""Test cases with layers of their own."""

from __future__ import annotations

import unittest
from typing import Any

from django.test import TestCase, TransactionTestCase, override_settings

from channels import Channel, channel_layers, route
from channels.layers import get_channel_layer
from channels.test import ChannelTestCase, Client, TransactionChannelTestCase, apply_routes
from tests.legacy.conftest import IN_MEMORY, MakeSite


def first(message: Any) -> str:
    return "first"


def second(message: Any) -> str:
    return "second"


LAYERS = {
    "default": {"BACKEND": IN_MEMORY, "ROUTING": [route("jobs", first)]},
    "other": {"BACKEND": IN_MEMORY, "ROUTING": [route("jobs", second)]},
}


@override_settings(CHANNEL_LAYERS=LAYERS)
class TestLayers(ChannelTestCase):
    test_channel_aliases = ["default", "other"]

    def setUp(self) -> None:
        """Calls no other, as in many suites."""

    def test_each_test_begins_with_empty_layers(self) -> None:
        self.assert_empty_and_fill()

    def test_this_one_too(self) -> None:
        self.assert_empty_and_fill()

    def assert_empty_and_fill(self) -> None:
        for alias in self.test_channel_aliases:
            assert self.get_next_message("jobs", alias) is None
            Channel("jobs", alias).send({})

    def test_each_layer_has_its_routing(self) -> None:
        assert Client().send_and_consume("jobs") == "first"
        assert Client("other").send_and_consume("jobs") == "second"

    def test_code_of_today_has_the_same_layer(self) -> None:
        assert get_channel_layer() is channel_layers["default"].layer


def test_afterwards_the_configured_layers_are_back(site: MakeSite) -> None:
    configured = site([route("jobs", first)])
    Channel("jobs").send({"kept": True})
    inside = []

    class Case(ChannelTestCase):
        def test(self) -> None:
            inside.append(channel_layers["default"])
            assert self.get_next_message("jobs") is None

    result = unittest.TestResult()
    Case("test").run(result)
    assert result.wasSuccessful()
    assert inside[0] is not configured
    assert channel_layers["default"] is configured
    assert configured.receive(["jobs"]) == ("jobs", {"kept": True})


class TestTransactions(TransactionChannelTestCase):
    test_channel_aliases: list[str] = []

    def test_it_is_one_of_djangos(self) -> None:
        assert isinstance(self, TransactionTestCase)
        assert not isinstance(self, TestCase)


@apply_routes([route("jobs", second)])
@override_settings(CHANNEL_LAYERS=LAYERS)
class TestRoutesOfAClass(ChannelTestCase):
    def setUp(self) -> None:
        self.in_setup = Client().send_and_consume("jobs")

    def test_they_are_there_in_setup_too(self) -> None:
        assert self.in_setup == Client().send_and_consume("jobs") == "second"
