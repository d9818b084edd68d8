from channels import route

from liveblog import consumers

channel_routing = [
    route("websocket.connect", consumers.ws_connect, path=r"^/$"),
    route("websocket.disconnect", consumers.ws_disconnect),
]
