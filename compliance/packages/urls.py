"""The views of the case, if it has some."""

import os
from importlib import import_module

_case = import_module(f"compliance.packages.cases.{os.environ['PACKAGE_CASE']}")

urlpatterns = _case.views() if hasattr(_case, "views") else []
