"""strawberry-graphql[channels]: GraphQL over HTTP and WebSocket, subscriptions by the layer."""

REQUIREMENTS = ["strawberry-graphql[channels]"]
APPS = []

SUBSCRIPTION = "graphql-transport-ws"


def application(django):
    from collections.abc import AsyncGenerator

    import strawberry
    from strawberry.channels import GraphQLProtocolTypeRouter

    from channels.layers import get_channel_layer

    @strawberry.type
    class Query:
        @strawberry.field
        def hello(self, name: str = "you") -> str:
            return f"hello {name}"

    @strawberry.type
    class Mutation:
        @strawberry.mutation
        async def tell(self, text: str) -> bool:
            await get_channel_layer().group_send("news", {"type": "news", "text": text})
            return True

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def news(self, info: strawberry.Info) -> AsyncGenerator[str, None]:
            consumer = info.context["ws"]
            async with consumer.listen_to_channel("news", groups=["news"]) as messages:
                yield "ready"
                async for message in messages:
                    yield message["text"]

    schema = strawberry.Schema(Query, Mutation, Subscription)
    return GraphQLProtocolTypeRouter(schema, django_application=django, url_pattern="^graphql")


def drive(site):
    import json

    from asgiref.sync import async_to_sync

    from channels.layers import get_channel_layer

    def query(text):
        body = json.dumps({"query": text})
        status, answer = site.request(
            "POST", "/graphql", body, **{"Content-Type": "application/json"}
        )
        assert status == 200, answer
        return json.loads(answer)["data"]

    assert query('{ hello(name: "Ada") }') == {"hello": "hello Ada"}
    with site.socket("/graphql", SUBSCRIPTION) as socket:
        assert socket.connection.subprotocol == SUBSCRIPTION
        assert socket.ask({"type": "connection_init"})["type"] == "connection_ack"
        subscription = {"query": "subscription { news }"}
        heard = socket.ask({"id": "1", "type": "subscribe", "payload": subscription})
        assert heard["payload"]["data"] == {"news": "ready"}, heard
        assert query('mutation { tell(text: "by HTTP") }') == {"tell": True}
        assert socket.hear()["payload"]["data"] == {"news": "by HTTP"}
        message = {"type": "news", "text": "by another process"}
        async_to_sync(get_channel_layer().group_send)("news", message)
        assert socket.hear()["payload"]["data"] == {"news": "by another process"}
        socket.say({"id": "1", "type": "complete"})
