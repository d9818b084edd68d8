"""The pages of docs/reference that are made of docstrings, and the names on each."""

from __future__ import annotations

#: File -> title, one line, and module -> names.
PAGES: dict[str, tuple[str, str, dict[str, list[str]]]] = {
    "consumers": (
        "Consumers",
        "The classes that consumers derive from.",
        {
            "channels.generic.websocket": [
                "AsyncWebsocketConsumer",
                "WebsocketConsumer",
                "AsyncJsonWebsocketConsumer",
                "JsonWebsocketConsumer",
            ],
            "channels.generic.http": ["AsyncHttpConsumer"],
            "channels.generic.sse": ["AsyncEventStreamConsumer"],
            "channels.consumer": [
                "AsyncConsumer",
                "SyncConsumer",
                "ClientLimits",
                "await_many_dispatch",
                "get_handler_name",
            ],
            "channels.db": ["database_sync_to_async", "aclose_old_connections"],
        },
    ),
    "routing": (
        "Routing and middleware",
        "From a connection to its consumer.",
        {
            "channels.routing": [
                "ProtocolTypeRouter",
                "URLRouter",
                "ChannelNameRouter",
                "get_default_application",
            ],
            "channels.middleware": ["BaseMiddleware"],
        },
    ),
    "layers": (
        "Layers",
        "Messages between consumers.",
        {
            "channels.layers": [
                "get_channel_layer",
                "broadcast",
                "BaseChannelLayer",
                "InMemoryChannelLayer",
                "LocalChannelLayer",
                "RedisChannelLayer",
                "RedisPubSubChannelLayer",
                "PostgresChannelLayer",
                "DatabaseChannelLayer",
                "RabbitMQChannelLayer",
                "NatsChannelLayer",
                "ChannelLayerManager",
            ],
            "channels.layers.process.leases": ["Lease"],
        },
    ),
    "security": (
        "Sessions, users, Origin",
        "Who is there, and from which page.",
        {
            "channels.auth": [
                "AuthMiddlewareStack",
                "AuthMiddleware",
                "get_user",
                "login",
                "logout",
            ],
            "channels.sessions": [
                "SessionMiddlewareStack",
                "SessionMiddleware",
                "CookieMiddleware",
            ],
            "channels.security.websocket": ["AllowedHostsOriginValidator", "OriginValidator"],
            "channels.security.access": [
                "AccessMiddleware",
                "end_access",
                "recheck_access",
                "listen",
            ],
            "channels.security.tokens": ["TokenAuthMiddleware", "TokenUser"],
            "channels.security.tickets": ["issue_ticket"],
        },
    ),
    "testing": (
        "Testing",
        "Communicators and the live server.",
        {
            "channels.testing": [
                "ApplicationCommunicator",
                "HttpCommunicator",
                "WebsocketCommunicator",
                "ChannelsLiveServerTestCase",
            ],
            "channels.testing.layers": ["LayerConformance", "Features", "Broker"],
            "channels.testing.proxy": ["ChaosProxy"],
        },
    ),
    "server": (
        "Server and workers",
        "Serving and working from Python.",
        {
            "channels.server": [
                "Server",
                "ServerOptions",
                "ProxyOptions",
                "AccessRecord",
                "RequestIdFilter",
                "current_request_id",
            ],
            "channels.server.probes": ["Readiness"],
            "channels.server.endpoints": ["Endpoint", "parse_endpoint"],
            "channels.worker": ["Worker"],
            "channels.metrics": ["metrics_app", "metrics_view", "ChannelsCollector"],
            "channels.opentelemetry": ["trace"],
        },
    ),
    "channels-1": (
        "Channels 1",
        "What programs of Channels 1 import.",
        {
            "channels.channel": ["Channel", "Group"],
            "channels.message": ["Message", "PendingMessageStore"],
            "channels.asgi": ["ChannelLayerWrapper"],
            "channels.handler": ["AsgiHandler", "AsgiRequest", "ViewConsumer"],
            "channels.generic.base": ["BaseConsumer"],
            "channels.generic.websockets": ["WebsocketDemultiplexer", "WebsocketMultiplexer"],
            "channels.binding.base": ["Binding", "BindingMetaclass"],
            "channels.binding.websockets": ["WebsocketBinding", "WebsocketBindingWithMembers"],
            "channels.security.websockets": [
                "BaseOriginValidator",
                "AllowedHostsOnlyOriginValidator",
                "allowed_hosts_only",
            ],
            "channels.delay.models": ["DelayedMessage", "DelayedMessageQuerySet"],
            "channels.log": ["setup_logger"],
            "channels.test": [
                "ChannelTestCase",
                "TransactionChannelTestCase",
                "ChannelLiveServerTestCase",
                "Client",
                "HttpClient",
                "WSClient",
                "apply_routes",
            ],
            "channels.test.base": ["ChannelTestCaseMixin"],
        },
    ),
    "errors": ("Errors", "Every exception that this package raises of its own.", {}),
}
