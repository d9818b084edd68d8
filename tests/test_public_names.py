"""The names that projects and packages for Channels 2, 3 and 4 import, and how they call them."""

from __future__ import annotations

import importlib
import inspect
from typing import Final
from unittest import mock

import pytest

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import InMemoryChannelLayer
from channels.testing import WebsocketCommunicator

#: Module -> its names.
NAMES: Final = {
    "channels": "DEFAULT_CHANNEL_LAYER __version__",
    "channels.apps": "ChannelsConfig",
    "channels.auth": (
        "AuthMiddleware AuthMiddlewareStack UserLazyObject get_user login logout "
        "_get_user_session_key"
    ),
    "channels.consumer": (
        "AsyncConsumer StopConsumer SyncConsumer await_many_dispatch get_channel_layer "
        "get_handler_name"
    ),
    "channels.db": (
        "DatabaseSyncToAsync aclose_old_connections close_old_connections database_sync_to_async"
    ),
    "channels.exceptions": (
        "AcceptConnection ChannelFull DenyConnection InvalidChannelLayerError MessageTooLarge "
        "RequestAborted RequestTimeout StopConsumer"
    ),
    "channels.generic.http": "AsyncHttpConsumer",
    "channels.generic.websocket": (
        "AsyncJsonWebsocketConsumer AsyncWebsocketConsumer JsonWebsocketConsumer WebsocketConsumer"
    ),
    "channels.hacks": "monkeypatch_django",
    "channels.http": "AsgiHandler AsgiRequest",
    "channels.layers": (
        "BaseChannelLayer ChannelFull ChannelLayerManager DEFAULT_CHANNEL_LAYER "
        "InMemoryChannelLayer InvalidChannelLayerError channel_layers get_channel_layer"
    ),
    "channels.management.commands.runserver": "Command",
    "channels.management.commands.runworker": "Command get_channel_layer get_default_application",
    "channels.middleware": "BaseMiddleware",
    "channels.routing": ("ChannelNameRouter ProtocolTypeRouter URLRouter get_default_application"),
    "channels.security.websocket": ("AllowedHostsOriginValidator OriginValidator WebsocketDenier"),
    "channels.sessions": (
        "CookieMiddleware InstanceSessionWrapper SessionMiddleware SessionMiddlewareStack"
    ),
    "channels.signals": "consumer_finished consumer_started",
    "channels.staticfiles": "StaticFilesHandler StaticFilesWrapper",
    "channels.testing": (
        "ApplicationCommunicator ChannelsLiveServerTestCase HttpCommunicator WebsocketCommunicator"
    ),
    "channels.testing.application": "ApplicationCommunicator",
    "channels.testing.http": "HttpCommunicator",
    "channels.testing.live": (
        "ChannelsLiveServerTestCase DaphneProcess make_application set_database_connection"
    ),
    "channels.testing.websocket": "WebsocketCommunicator",
    "channels.utils": "await_many_dispatch name_that_thing",
    "channels.worker": "StatelessServer Worker",
    "channels_redis.core": "BaseChannelLayer ChannelFull RedisChannelLayer",
    "channels_redis.pubsub": "RedisPubSubChannelLayer",
    "channels_redis.serializers": (
        "BaseMessageSerializer JSONSerializer MsgPackSerializer SerializerDoesNotExist "
        "SerializersRegistry registry"
    ),
    "channels_redis.utils": "_close_redis _consistent_hash create_pool decode_hosts",
    "daphne.cli": "CommandLineInterface",
    "daphne.endpoints": "build_endpoint_description_strings",
    "daphne.management.commands.runserver": "Command",
    "daphne.server": "Server",
    "daphne.testing": "DaphneProcess",
}

#: The same for Channels 1.
OLD_NAMES: Final = {
    "channels": "Channel Group channel_layers include route route_class",
    "channels.asgi": (
        "ChannelLayerManager ChannelLayerWrapper InvalidChannelLayerError channel_layers "
        "get_channel_layer"
    ),
    "channels.auth": (
        "channel_and_http_session_user_from_http channel_session_user "
        "channel_session_user_from_http http_session_user transfer_user"
    ),
    "channels.channel": "Channel Group",
    "channels.exceptions": (
        "ChannelSocketException ConsumeLater DenyConnection RequestAborted RequestTimeout "
        "ResponseLater SendNotAvailableOnDemultiplexer WebsocketCloseException"
    ),
    "channels.handler": "AsgiHandler AsgiRequest ViewConsumer",
    "channels.hacks": "monkeypatch_django",
    "channels.log": "handler setup_logger",
    "channels.message": "Message PendingMessageStore pending_message_store",
    "channels.package_checks": "check_all required_versions",
    "channels.routing": (
        "Include Route RouteClass Router connect_consumer include null_consumer route route_class"
    ),
    "channels.security.websockets": (
        "AllowedHostsOnlyOriginValidator BaseOriginValidator allowed_hosts_only"
    ),
    "channels.sessions": (
        "channel_and_http_session channel_session enforce_ordering http_session requeue_messages "
        "session_for_reply_channel wait_channel_name"
    ),
    "channels.signals": ("consumer_finished consumer_started worker_process_ready worker_ready"),
    "channels.staticfiles": "StaticFilesConsumer",
    "channels.utils": "name_that_thing",
    "channels.legacy.staticfiles": "StaticFilesConsumer StaticFilesHandler",
    "channels.legacy.worker": "Worker WorkerGroup",
}

#: Class -> what programs and their tests call or override, also where it is private.
MEMBERS: Final = {
    "channels.layers:ChannelLayerManager": (
        "_reset_backends configs make_backend make_test_backend set"
    ),
    "channels.layers:InMemoryChannelLayer": (
        "_clean_expired _remove_from_groups channels close flush groups"
    ),
    "channels.worker:Worker": (
        "application_exception application_send arun get_or_create_application_instance handle "
        "listener run"
    ),
    "channels_redis.core:RedisChannelLayer": (
        "_group_key client_prefix close_pools connection consistent_hash create_pool deserialize "
        "receive_single ring_size serialize wait_received"
    ),
    "channels_redis.pubsub:RedisPubSubChannelLayer": "channels groups",
}

#: Module and name -> its parameters, in the order that positional arguments have.
PARAMETERS: Final = {
    "channels.auth:get_user": "scope",
    "channels.auth:login": "scope user backend",
    "channels.auth:logout": "scope",
    "channels.consumer:get_handler_name": "message",
    "channels.generic.http:AsyncHttpConsumer.handle": "self body",
    "channels.generic.http:AsyncHttpConsumer.send_body": "self body more_body",
    "channels.generic.http:AsyncHttpConsumer.send_headers": "self status headers",
    "channels.generic.http:AsyncHttpConsumer.send_response": "self status body kwargs",
    "channels.generic.websocket:AsyncWebsocketConsumer.accept": "self subprotocol headers",
    "channels.generic.websocket:AsyncWebsocketConsumer.close": "self code reason",
    "channels.generic.websocket:AsyncWebsocketConsumer.disconnect": "self code",
    "channels.generic.websocket:AsyncWebsocketConsumer.receive": "self text_data bytes_data",
    "channels.generic.websocket:AsyncWebsocketConsumer.send": "self text_data bytes_data close",
    "channels.generic.websocket:AsyncJsonWebsocketConsumer.receive": (
        "self text_data bytes_data kwargs"
    ),
    "channels.generic.websocket:AsyncJsonWebsocketConsumer.receive_json": "self content kwargs",
    "channels.generic.websocket:AsyncJsonWebsocketConsumer.send_json": "self content close",
    "channels.generic.websocket:WebsocketConsumer.accept": "self subprotocol headers",
    "channels.generic.websocket:WebsocketConsumer.close": "self code reason",
    "channels.generic.websocket:WebsocketConsumer.send": "self text_data bytes_data close",
    "channels.generic.websocket:JsonWebsocketConsumer.receive": "self text_data bytes_data kwargs",
    "channels.generic.websocket:JsonWebsocketConsumer.send_json": "self content close",
    "channels.layers:BaseChannelLayer.__init__": "self expiry capacity channel_capacity",
    "channels.layers:BaseChannelLayer.require_valid_channel_name": "self name receive",
    "channels.layers:BaseChannelLayer.valid_channel_names": "self names receive",
    "channels.layers:ChannelLayerManager.set": "self key layer",
    "channels.layers:InMemoryChannelLayer.__init__": (
        "self expiry group_expiry capacity channel_capacity kwargs"
    ),
    "channels.layers:get_channel_layer": "alias",
    "channels.middleware:BaseMiddleware.__init__": "self inner",
    "channels.security.websocket:OriginValidator.__init__": "self application allowed_origins",
    "channels.sessions:CookieMiddleware.set_cookie": (
        "message key value max_age expires path domain secure httponly samesite"
    ),
    "channels.staticfiles:StaticFilesWrapper.__init__": "self application staticfiles_handler",
    "channels.testing:HttpCommunicator.__init__": "self application method path body headers",
    "channels.testing:WebsocketCommunicator.__init__": (
        "self application path headers subprotocols spec_version"
    ),
    "channels.testing:WebsocketCommunicator.connect": "self timeout",
    "channels.testing:WebsocketCommunicator.disconnect": "self code timeout",
    "channels.testing:WebsocketCommunicator.send_to": "self text_data bytes_data",
    "channels.testing:ApplicationCommunicator.receive_nothing": "self timeout interval",
    "channels.testing:ApplicationCommunicator.stop": "self exceptions",
    "channels.testing:ApplicationCommunicator.wait": "self timeout",
    "channels.testing.live:make_application": "static_wrapper",
    "channels.utils:await_many_dispatch": "consumer_callables dispatch",
    "channels.worker:Worker.application_exception": "self exception application_details",
    "channels.worker:Worker.application_send": "self scope message",
    "channels.worker:Worker.get_or_create_application_instance": "self scope_id scope",
    "channels.worker:Worker.listener": "self channel",
}


@pytest.mark.parametrize(
    ("module", "names"), [each for table in (NAMES, OLD_NAMES) for each in table.items()]
)
def test_names(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("path", MEMBERS)
def test_members(path: str) -> None:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert [member for member in MEMBERS[path].split() if not hasattr(found, member)] == []


def test_the_live_servers_class_is_daphnes() -> None:
    live = importlib.import_module("channels.testing.live")
    assert live.DaphneProcess is importlib.import_module("daphne.testing").DaphneProcess
    with pytest.raises(AttributeError, match="has no attribute 'DaphneProces'"):
        _ = live.DaphneProces


@pytest.mark.parametrize("path", PARAMETERS)
def test_parameters(path: str) -> None:
    module, _, attributes = path.partition(":")
    found = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    assert callable(found)
    assert list(inspect.signature(found).parameters) == PARAMETERS[path].split()


async def test_the_layer_of_consumers_can_be_replaced_where_their_module_shows_it() -> None:
    class Named(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept("has a layer" if self.channel_layer else None)

    for layer, said in ((InMemoryChannelLayer(), "has a layer"), (None, None)):
        with mock.patch("channels.consumer.get_channel_layer", return_value=layer):
            client = WebsocketCommunicator(Named.as_asgi(), "/")
            assert await client.connect() == (True, said)
            await client.disconnect()
