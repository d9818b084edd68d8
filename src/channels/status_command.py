"""`channels status`: what the edges and workers of a channel layer are at."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.loading import find_layer
from channels.status import QueueLength, as_table, ask, count_queues


def add_status(commands: Any) -> None:
    """Add the command to the subparsers of `channels`."""
    status = commands.add_parser(
        "status",
        help="show the edges and workers of a channel layer",
        description="Ask every interface server and worker of a channel layer what it does.",
    )
    status.add_argument(
        "application", nargs="?", metavar="layer", help="where it is: mysite.asgi:channel_layer"
    )
    status.add_argument(
        "--layer",
        default=DEFAULT_CHANNEL_LAYER,
        metavar="ALIAS",
        help=f"which of CHANNEL_LAYERS; default: {DEFAULT_CHANNEL_LAYER}",
    )
    status.add_argument(
        "--wait", type=float, default=1.0, metavar="SECONDS", help="for answers; default: 1"
    )
    status.add_argument("--json", action="store_true", help="print the answers as JSON")
    status.set_defaults(run=run_status)


def run_status(namespace: argparse.Namespace) -> int:
    """`channels status`: 0 if at least one process has answered, else 1.

    Raises:
        InvalidOption: If there is no such channel layer.
    """
    found = find_layer(namespace.application, namespace.layer)
    layer = getattr(found, "layer", found)

    async def ask_and_close() -> tuple[list[dict[str, Any]], list[QueueLength]]:
        try:
            answers = await ask(layer, namespace.wait)
            return answers, await count_queues(layer, answers)
        finally:
            await layer.close()

    answers, queues = asyncio.run(ask_and_close())
    if namespace.json:
        lengths = [each._asdict() for each in queues]
        sys.stdout.write(f"{json.dumps({'processes': answers, 'queues': lengths})}\n")
    elif answers:
        sys.stdout.write(f"{as_table(answers, queues)}\n")
    else:
        sys.stderr.write(f"channels status: nobody has answered within {namespace.wait:g} s.\n")
    return 0 if answers else 1
