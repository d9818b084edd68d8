"""Run the chat under one server: python -m tests.interop.serve SERVER LISTENING_FD"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command

from tests.hostile.serve import run_ours, run_uvicorn


def run_hypercorn(application: Any, listening: int, options: dict[str, dict[str, Any]]) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listening}"]
    asyncio.run(serve(application, config))


SERVERS = {"channels": run_ours, "uvicorn": run_uvicorn, "hypercorn": run_hypercorn}


def main() -> None:

    # get_asgi_application() in it sets Django up, as in every project.
    from tests.interop.asgi import application

    server, listening = sys.argv[1:]
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_user("ada")
    SERVERS[server](application, int(listening), {})


if __name__ == "__main__":
    main()
