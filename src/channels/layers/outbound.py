"""Messages that are already what the sockets shall send."""

from __future__ import annotations

import json as json_module
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.fanout.delivery import OUTBOUND
from channels.kit.types import Message
from channels.layers.base import BaseChannelLayer
from channels.layers.registry import get_channel_layer


def outbound_message(*, text: str | None, data: bytes | None, json: Any) -> Message:
    """The event that makes every member's socket send this; exactly one must be given.

    Raises:
        TypeError: If none or several are given, or one is of the wrong type.
    """
    choices = {"text": text, "bytes": data, "json": json}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise TypeError(f"broadcast() takes exactly one of text, bytes and json: found {found}.")
    if json is not None:
        text = json_module.dumps(json, ensure_ascii=False, separators=(",", ":"))
    if data is not None:
        return {"type": OUTBOUND, "bytes": bytes(data)}
    if not isinstance(text, str):
        raise TypeError(f"broadcast(text=...) takes a str: found {type(text).__name__}.")
    return {"type": OUTBOUND, "text": text}


async def broadcast(
    group: str,
    *,
    text: str | None = None,
    bytes: bytes | None = None,  # noqa: A002 - ASGI's word for it
    json: Any = None,
    layer: BaseChannelLayer | str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Send the same WebSocket message to all connections of a group, without their consumers.

    It is encoded once and framed once.  `layer.sync.broadcast` is the same for sync code.

    Args:
        json: Anything that the json module takes; sent as text.
        layer: A layer or its alias.

    Raises:
        TypeError: Unless exactly one of text, bytes and json is given.
        InvalidChannelLayerError: If no layer has this alias.
    """
    message = outbound_message(text=text, data=bytes, json=json)
    found = get_channel_layer(layer) if isinstance(layer, str) else layer
    if found is None:
        raise InvalidChannelLayerError(f"No channel layer is configured as {layer!r}.")
    await found.group_send(group, message)
