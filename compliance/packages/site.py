"""Django's settings for one case; PACKAGE_CASE and PACKAGE_FOLDER in the environment name it."""

import os
from importlib import import_module

_case = import_module(f"compliance.packages.cases.{os.environ['PACKAGE_CASE']}")
_folder = os.environ["PACKAGE_FOLDER"]

SECRET_KEY = "of a site that lives for seconds"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
INSTALLED_APPS = [
    "channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *_case.APPS,
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [_folder],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder}/db.sqlite3"},
}
# The client is a second process: its signals reach the server's consumers through this layer.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.LocalChannelLayer",
        "CONFIG": {"directory": _folder},
    }
}
STATIC_URL = "/static/"
ROOT_URLCONF = "compliance.packages.urls"
ASGI_APPLICATION = "compliance.packages.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
globals().update(getattr(_case, "SETTINGS", {}))
