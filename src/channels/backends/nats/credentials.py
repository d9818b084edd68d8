"""Logging in with a key: the server sends a number, the client signs it.

A file of credentials, as `nsc` writes it, has a JWT and the seed of a key (NKEY, Ed25519); a file
with a seed alone is for a server that knows the public key itself.

A seed is base32 of: two octets that say what it is for, 32 of the key, a CRC-16 of these.  A public
key is base32 of: one octet that says what it is for, 32 of the key, the CRC-16.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from channels.exceptions import InvalidChannelLayerError

_BLOCK: Final = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END")
_SEED: Final = re.compile(r"^\s*(SU[A-Z2-7]+)\s*$", re.MULTILINE)
_USER: Final = 20 << 3


class Credentials:
    """Who this process is, to the servers."""

    def __init__(self, jwt: str, seed: str, source: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - an optional extra
                Ed25519PrivateKey,
            )
        except ImportError as error:
            raise InvalidChannelLayerError(
                "credentials need the package cryptography: install channels[crypto]."
            ) from error
        self._jwt = jwt
        self._key = Ed25519PrivateKey.from_private_bytes(_seed_octets(seed, source))

    @property
    def public_key(self) -> str:
        """As the server's configuration names it: "U..."."""
        return _encode(bytes([_USER]) + self._key.public_key().public_bytes_raw())

    def answer(self, nonce: str) -> dict[str, str]:
        """What to say when logging in."""
        signed = base64.urlsafe_b64encode(self._key.sign(nonce.encode())).rstrip(b"=").decode()
        if self._jwt:
            return {"jwt": self._jwt, "sig": signed}
        return {"nkey": self.public_key, "sig": signed}


def read_credentials(path: str) -> Credentials:
    """The credentials in a file.

    Raises:
        InvalidChannelLayerError: If there are none.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidChannelLayerError(f"credentials={path!r} cannot be read: {error}") from error
    blocks = dict(_BLOCK.findall(text))
    seed = blocks.get("USER NKEY SEED", "")
    if not seed and (found := _SEED.search(text)) is not None:
        seed = found[1]
    if not seed:
        raise InvalidChannelLayerError(
            f"credentials={path!r} holds no seed of a user's key: expected a file as nsc writes "
            "it, or one with a seed SU... alone."
        )
    return Credentials(blocks.get("NATS USER JWT", ""), seed, path)


def _seed_octets(seed: str, source: str) -> bytes:
    try:
        octets = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        octets = b""
    if len(octets) != 36 or binascii.crc_hqx(octets[:-2], 0).to_bytes(2, "little") != octets[-2:]:
        raise InvalidChannelLayerError(f"credentials={source!r}: the seed is damaged.")
    return octets[2:-2]


def _encode(octets: bytes) -> str:
    crc = binascii.crc_hqx(octets, 0).to_bytes(2, "little")
    return base64.b32encode(octets + crc).rstrip(b"=").decode()
