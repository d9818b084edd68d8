"""channels-auth-token-middlewares: users by a token in a header or the query string."""

REQUIREMENTS = [
    "channels-auth-token-middlewares",
    "djangorestframework",
    "djangorestframework-simplejwt",
]
APPS = ["rest_framework", "rest_framework.authtoken"]


def application(django):
    from channels_auth_token_middlewares.middleware import (
        DRFAuthTokenMiddleware,
        QueryStringSimpleJWTAuthTokenMiddleware,
    )
    from django.urls import path

    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class WhoAmI(AsyncJsonWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await self.send_json(self.scope["user"].get_username())

    routes = URLRouter(
        [
            path("ws/token/", DRFAuthTokenMiddleware(WhoAmI.as_asgi())),
            path("ws/jwt/", QueryStringSimpleJWTAuthTokenMiddleware(WhoAmI.as_asgi())),
        ]
    )
    return ProtocolTypeRouter({"http": django, "websocket": routes})


def drive(site):
    from django.contrib.auth.models import User
    from rest_framework.authtoken.models import Token
    from rest_framework_simplejwt.tokens import AccessToken

    ada = User.objects.create_user("ada")
    token = Token.objects.create(user=ada)
    with site.socket("/ws/token/", Authorization=f"Token {token.key}") as socket:
        assert socket.hear() == "ada"
    with site.socket("/ws/token/", Authorization="Token " + "0" * 40) as socket:
        assert socket.hear() == ""
    with site.socket(f"/ws/jwt/?token={AccessToken.for_user(ada)}") as socket:
        assert socket.hear() == "ada"
    with site.socket("/ws/jwt/?token=forged") as socket:
        assert socket.hear() == ""
