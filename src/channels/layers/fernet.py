"""Fernet with keys derived as today's Redis layer does it: both can read what the other sealed.

For the serializers that have its interface; the layers themselves seal envelopes (`seal`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from channels.layers.seal import check_secrets, missing_package


def derive_key(secret: str | bytes) -> bytes:
    """The Fernet key of a secret."""
    data = secret.encode() if isinstance(secret, str) else secret
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest())


def make_fernet(key: str | bytes) -> Any:
    """What seals and opens with one secret.

    Raises:
        InvalidChannelLayerError: If it is empty, or the package that seals is missing.
    """
    (secret,) = check_secrets([key])
    try:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise missing_package() from error
    return Fernet(derive_key(secret))


def make_fernets(keys: Sequence[str | bytes]) -> Any:
    """What seals with the first of these secrets and opens with any.

    Raises:
        InvalidChannelLayerError: As `check_secrets`; or if the package that seals is missing.
    """
    seals = [make_fernet(key) for key in check_secrets(keys)]
    from cryptography.fernet import MultiFernet  # noqa: PLC0415 - an optional extra

    return MultiFernet(seals)
