"""django-channels-graphql-ws-next: GraphQL subscriptions with graphene, broadcast by the layer."""

REQUIREMENTS = ["django-channels-graphql-ws-next"]
APPS = []


def _schema():
    import channels_graphql_ws
    import graphene

    class News(channels_graphql_ws.Subscription):
        text = graphene.String()

        @staticmethod
        def subscribe(root, info):
            return ["news"]

        @staticmethod
        def publish(payload, info):
            return News(text=payload["text"])

    class Query(graphene.ObjectType):
        hello = graphene.String()

        def resolve_hello(self, info):
            return "hello"

    class Subscription(graphene.ObjectType):
        news = News.Field()

    return graphene.Schema(query=Query, subscription=Subscription), News


def application(django):
    import channels_graphql_ws
    from django.urls import path

    from channels.routing import ProtocolTypeRouter, URLRouter

    made, _ = _schema()

    class GraphQL(channels_graphql_ws.GraphqlWsConsumer):
        schema = made

    return ProtocolTypeRouter(
        {"http": django, "websocket": URLRouter([path("graphql/", GraphQL.as_asgi())])}
    )


def drive(site):
    with site.socket("/graphql/", "graphql-transport-ws") as socket:
        assert socket.ask({"type": "connection_init", "payload": {}})["type"] == "connection_ack"
        heard = socket.ask({"id": "1", "type": "subscribe", "payload": {"query": "{ hello }"}})
        assert heard["payload"]["data"] == {"hello": "hello"}, heard
        socket.hear_until(type="complete")
        query = "subscription { news { text } }"
        socket.say({"id": "2", "type": "subscribe", "payload": {"query": query}})
        # Nothing says when a subscription holds, so what comes before it is asked for again.
        _, news = _schema()
        for number in range(100):
            news.broadcast(group="news", payload={"text": f"news {number}"})
            try:
                heard = socket.connection.recv(0.3)
                break
            except TimeoutError:
                continue
        assert "news " in heard, heard
