"""The test run that this process is part of: its layers are not those of the running site.

    what                                             how its name is found
    `manage.py test`, pytest-django, any other       begun on first use, and written into the
    caller of Django's `setup_test_environment`      environment
    a process that a test starts, its live server    from the environment
    a worker of `manage.py test --parallel`          its number is added in the environment
    a worker of pytest-xdist, and what that starts   pytest-xdist's own variables are added

Django is not imported: where it is not in `sys.modules` there is no test run of it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from typing import Any, Final

#: The environment variable; processes with the same value share their layers.
VARIABLE: Final = "CHANNELS_TEST_RUN"
#: Set by pytest-xdist in its workers.
_XDIST: Final = ("PYTEST_XDIST_TESTRUNUID", "PYTEST_XDIST_WORKER")
_COMMANDS: Final = ("manage.py", "django-admin", f"django{os.sep}__main__.py")
#: The worker of Django's whose number is in the environment already.
_numbered: list[int] = [0]


def join_test_run() -> str:
    """The name of the test run that this process is part of; empty if it is part of none.

    Processes that are started after this call are part of it too.
    """
    run = os.environ.get(VARIABLE, "")
    if not run and _is_begun_here():
        run = os.environ[VARIABLE] = secrets.token_hex(8)
    if run and (worker := _django("django.test.runner", "_worker_id") or 0) != _numbered[0]:
        run = os.environ[VARIABLE] = f"{run}-{worker}"
        _numbered[0] = worker
    return "/".join(filter(None, (run, *map(os.environ.get, _XDIST)))) if run else ""


def own_prefix(run: str, prefix: object) -> str:
    """What takes the place of a prefix in a test run: 21 characters that every layer takes."""
    return f"test-{hashlib.sha256(f'{run}/{prefix}'.encode()).hexdigest()[:16]}"


def _is_begun_here() -> bool:
    """True in the process that runs the tests.

    The first two tests hold before the test environment is set up: modules that are imported by
    `django.setup` may ask for a layer and keep it.
    """
    return (
        "pytest_django" in sys.modules
        or (sys.argv[1:2] == ["test"] and sys.argv[0].endswith(_COMMANDS))
        # Not `mail.outbox`, which sites with the locmem e-mail backend have as well.
        or hasattr(_django("django.test.utils", "_TestState"), "saved_data")
    )


def _django(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)
