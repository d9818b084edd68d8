"""What `runworker udp.receive` runs."""

import os

import django
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from sensors.consumers import SensorConsumer

application = ProtocolTypeRouter(
    {"channel": ChannelNameRouter({"udp.receive": SensorConsumer.as_asgi()})}
)
