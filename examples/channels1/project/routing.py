"""Which consumers take the messages of sockets; requests go to Django's views by themselves."""

from channels import include

channel_routing = [
    include("chat.routing.channel_routing", path=r"^/chat"),
    include("liveblog.routing.channel_routing", path=r"^/liveblog"),
]
