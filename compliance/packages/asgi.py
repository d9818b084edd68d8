"""The application of the case."""

import os
from importlib import import_module

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "compliance.packages.site")
_django = get_asgi_application()

application = import_module(f"compliance.packages.cases.{os.environ['PACKAGE_CASE']}").application(
    _django
)
