"""Test cases whose channel layers are in memory, empty at the start of each test."""

from __future__ import annotations

import contextlib
import unittest
from collections.abc import Iterator, Sequence

from django.test import TestCase, TransactionTestCase

from channels import DEFAULT_CHANNEL_LAYER
from channels.backends.memory.layer import InMemoryChannelLayer
from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.legacy.message import Message


class ChannelTestCaseMixin(unittest.TestCase):
    """Gives each test fresh layers with the routing of the configured ones.

    Attributes:
        test_channel_aliases: The layers that are replaced.
    """

    test_channel_aliases: Sequence[str] = (DEFAULT_CHANNEL_LAYER,)

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        # Around setUp, which a test may override without calling this class's.
        with _layers_in_memory(self.test_channel_aliases):
            return super().run(result)

    def get_next_message(
        self, channel: str, alias: str = DEFAULT_CHANNEL_LAYER, require: bool = False
    ) -> Message | None:
        """The next message that was sent to a channel, or None.

        Args:
            require: Whether the test fails if there is none.
        """
        message = next_message(channel, alias)
        if message is None and require:
            self.fail(f"Expected a message on channel {channel!r}, but there is none.")
        return message


class ChannelTestCase(ChannelTestCaseMixin, TestCase):
    """Django's TestCase with fresh layers."""


class TransactionChannelTestCase(ChannelTestCaseMixin, TransactionTestCase):
    """Django's TransactionTestCase with fresh layers."""


def next_message(channel: str, alias: str) -> Message | None:
    """The next message of a channel, or None."""
    layer = channel_layers[alias]
    name, content = layer.receive([channel])
    return None if name is None else Message(content, name, layer)


@contextlib.contextmanager
def _layers_in_memory(aliases: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for alias in aliases:
            routing = channel_layers[alias].routing
            fresh = ChannelLayerWrapper(InMemoryChannelLayer(), alias, routing)
            stack.callback(channel_layers.set, alias, channel_layers.set(alias, fresh))
        yield
