"""The places where Channels 1 had its generic part."""

from __future__ import annotations

import importlib
import sys

import pytest

TOOLS = (
    "ChannelLiveServerTestCase ChannelTestCase Client HttpClient TransactionChannelTestCase "
    "WSClient apply_routes"
)
NAMES = {
    "channels.binding": "Binding",
    "channels.binding.base": "CREATE DELETE UPDATE Binding BindingMetaclass",
    "channels.binding.websockets": "WebsocketBinding WebsocketBindingWithMembers",
    "channels.delay.apps": "DelayConfig",
    "channels.delay.models": "DelayedMessage",
    "channels.delay.worker": "Worker",
    "channels.generic": "BaseConsumer",
    "channels.generic.base": "BaseConsumer",
    "channels.generic.websockets": (
        "JsonWebsocketConsumer WebsocketConsumer WebsocketDemultiplexer WebsocketMultiplexer"
    ),
    "channels.test": TOOLS,
    "channels.test.base": "ChannelTestCase Client TransactionChannelTestCase apply_routes",
    "channels.test.liveserver": "ChannelLiveServerTestCase",
    "channels.test.websocket": "WSClient",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("module", "names"), [("channels.tests", TOOLS), ("channels.test.http", "HttpClient")]
)
def test_older_places_say_that_they_are(module: str, names: str) -> None:
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=f"{module} is deprecated: import"):
        found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []
