"""No database, no pages: datagrams in, consumers, datagrams out."""

import os

SECRET_KEY = "django-insecure-udp-not-for-production"
DEBUG = False
INSTALLED_APPS = ["channels", "sensors"]
ASGI_APPLICATION = "project.asgi.application"
CHANNEL_LAYERS = {
    # The processes of this machine, without a broker.
    "default": {
        "BACKEND": "channels.layers.LocalChannelLayer",
        "CONFIG": {"prefix": os.environ.get("UDP_PREFIX", "udp")},
    }
}
