"""A consumer's state as octets, which the edge keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from channels.kit.types import Scope
from channels.server.application import describe

logger: Final = logging.getLogger("django.channels.decoupled")


def encode_state(
    snapshot: Callable[[], Mapping[str, Any]], most: int, scope: Scope
) -> bytes | None:
    """What `snapshot` returns; None, and a line in the log, if that is none or too long."""
    try:
        state: bytes = msgpack.packb(dict(snapshot()), use_bin_type=True)
    except Exception:
        logger.exception("The state of %s cannot be handed over.", describe(scope))
        return None
    if len(state) > most:
        logger.error(
            "The state of %s cannot be handed over: it has %s bytes, and max_state_bytes is %s.",
            describe(scope),
            len(state),
            most,
        )
        return None
    return state
