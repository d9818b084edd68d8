"""Signals of consumers' lives, under the names of Channels 2 and 3.

Both are sent with the consumer's class as `sender`, the connection's `scope`, and, for receivers
written then, an empty `environ`.  A receiver's error is logged by Django and stops nothing.
"""

from __future__ import annotations

from typing import Any, Final

from django.dispatch import Signal

from channels.kit.old_names import old_names
from channels.kit.types import Scope

#: Sent before a consumer handles its first event.
consumer_started: Final = Signal()
#: Sent once a consumer has ended, for whatever reason.
consumer_finished: Final = Signal()
#: Sent with the former `session_key` once `channels.auth.logout` has deleted a session.
session_ended: Final = Signal()


async def announce(signal: Signal, sender: type[Any], scope: Scope) -> None:
    """Send one of the signals; costs nothing while nobody listens."""
    if signal.receivers:
        await signal.asend_robust(sender=sender, scope=scope, environ={})


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "worker_process_ready": "channels.legacy.signals",
        "worker_ready": "channels.legacy.signals",
    },
)
