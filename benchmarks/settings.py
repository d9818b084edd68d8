"""The least that Django and Channels need; the same under every server that is compared."""

SECRET_KEY = "a benchmark keeps no secrets"
INSTALLED_APPS = ["channels"]
ALLOWED_HOSTS = ["*"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
