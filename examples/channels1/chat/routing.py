from channels import route

from chat import consumers

channel_routing = [
    route("websocket.connect", consumers.ws_connect, path=r"^/(?P<label>[\w-]{1,50})/$"),
    route("websocket.receive", consumers.ws_receive),
    route("websocket.disconnect", consumers.ws_disconnect),
]
