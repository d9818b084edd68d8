"""Sends that wait for a database transaction: rolled back is not sent.

    with transaction.atomic():
        order.save()
        group_send_on_commit(f"order.{order.pk}", {"type": "order.changed"})

`..._on_commit` work with every layer: the message is sent right after the commit, and is lost if
the process ends between the two.  `atomic_...` write it in the transaction itself where the layer
can (`PostgresChannelLayer` in the same database), so that it is sent if and only if the transaction
commits; with other layers they are the same as `..._on_commit`.

Outside a transaction they send at once.  In Django's TestCase, whose transaction never commits, use
`captureOnCommitCallbacks(execute=True)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.utils import DEFAULT_DB_ALIAS

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.kit.types import Message
from channels.layers.base import BaseChannelLayer
from channels.layers.registry import get_channel_layer

Layer = BaseChannelLayer | str


def send_on_commit(
    channel: str,
    message: Message,
    *,
    using: str | None = None,
    layer: Layer = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
    delay: float = 0.0,
) -> None:
    """Send to one channel once the open transaction has committed.

    Args:
        message: Taken as it is now; what becomes of it later is not sent.
        using: The alias of the database; None: the default one.
        layer: A layer or its alias.
        robust: Whether an error of the send, after the commit, is logged by Django instead of
            raised where the transaction ends; then what else waits for the commit still runs.
        delay: Seconds from the commit until it is delivered; as `send` of the layer takes it, and
            refuses it, then.

    Raises:
        TypeError: At once, if the name breaks the rules.
        InvalidChannelLayerError: At once, if no layer has this alias.
    """
    found = _find(layer)
    found.require_valid_channel_name(channel)
    send = _blocking(found, "send")
    if delay:
        send = partial(send, delay=delay)
    _on_commit(send, channel, message, using, robust)


def group_send_on_commit(
    group: str,
    message: Message,
    *,
    using: str | None = None,
    layer: Layer = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
) -> None:
    """Send to a group once the open transaction has committed; as `send_on_commit`."""
    found = _find(layer)
    found.require_valid_group_name(group)
    _on_commit(_blocking(found, "group_send"), group, message, using, robust)


def atomic_send(
    channel: str,
    message: Message,
    *,
    using: str | None = None,
    layer: Layer = DEFAULT_CHANNEL_LAYER,
    delay: float = 0.0,
) -> None:
    """Send to one channel as part of the open transaction, where the layer can.

    Args:
        delay: Seconds until it is delivered; from this call on if the layer can, else from the
            commit.

    Raises:
        ChannelFull: If it can, and the channel holds its capacity.
        InvalidChannelLayerError: If it can, but not in this database; or as `send_on_commit`.
    """
    found = _find(layer)
    native = getattr(found, "atomic_send", None)
    if native is None:
        send_on_commit(channel, message, using=using, layer=found, delay=delay)
        return
    later = {"delay": delay} if delay else {}
    native(connections[using or DEFAULT_DB_ALIAS], channel, message, **later)


def atomic_group_send(
    group: str,
    message: Message,
    *,
    using: str | None = None,
    layer: Layer = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Send to a group as part of the open transaction, where the layer can; as `atomic_send`."""
    found = _find(layer)
    native = getattr(found, "atomic_group_send", None)
    if native is None:
        group_send_on_commit(group, message, using=using, layer=found)
    else:
        native(connections[using or DEFAULT_DB_ALIAS], group, message)


def _find(layer: Layer) -> BaseChannelLayer:
    if isinstance(layer, BaseChannelLayer):
        return layer
    found: BaseChannelLayer | None = get_channel_layer(layer)
    if found is None:
        raise InvalidChannelLayerError(f"No channel layer is configured as {layer!r}.")
    return found


def _blocking(layer: BaseChannelLayer, verb: str) -> Callable[..., Any]:
    """The verb for code without a loop; a third party's layer may have but the other kind."""
    sync = getattr(layer, "sync", None)
    if sync is not None:
        return getattr(sync, verb)  # type: ignore[no-any-return]
    return async_to_sync(getattr(layer, verb))


def _on_commit(
    send: Callable[[str, Message], Any],
    name: str,
    message: Message,
    using: str | None,
    robust: bool,
) -> None:
    message = copy.deepcopy(message)

    # A function of its own: Django names it when it fails.
    def send_to_layer() -> None:
        send(name, message)

    transaction.on_commit(send_to_layer, using=using, robust=robust)
