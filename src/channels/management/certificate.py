"""A certificate for `runserver --https`: made on the spot, by nobody whom a browser trusts.

It is kept for the next start, or the browser would ask again each time.  Whoever has the key can
pass for this machine's development server in a browser that was told to go on, so the file is its
owner's alone; the certificate signs no others, and names this machine only.
"""

from __future__ import annotations

import os
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from channels.exceptions import StartupFailed
from channels.server.endpoints import Tls

_NAMES: Final = ("localhost",)
_ADDRESSES: Final = ("127.0.0.1", "::1")
#: Browsers refuse certificates that are valid for over 398 days.
_VALID: Final = timedelta(days=397)
#: One that ends so soon is made anew.
_LEAST_LEFT: Final = timedelta(days=7)
_FILE: Final = "development.pem"


def development_certificate(folder: Path | None = None) -> Tls:
    """The certificate of this user and machine, made if there is none that is still valid.

    Args:
        folder: Where it is kept; None: `channels` in XDG_DATA_HOME, or in ~/.local/share.

    Raises:
        StartupFailed: If it cannot be made or kept, or if others could read its key.
    """
    if folder is None:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        folder = Path(home).expanduser() / "channels"
    path = folder / _FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_fit(path):
            _write(path, _make())
    except OSError as error:
        raise StartupFailed(
            f"The certificate for --https cannot be kept in {folder}: {error}.  Set XDG_DATA_HOME "
            "to a folder that this user may write to."
        ) from error
    return Tls(str(path), str(path))


def _is_fit(path: Path) -> bool:
    """True for a certificate that is valid for a while yet.

    Raises:
        StartupFailed: If it is another user's, or others may read it.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StartupFailed(
            f"The key in {path} may be read by others than its owner, or is another user's: delete "
            "the file, and runserver makes another one."
        )
    x509 = _library()[0]
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return False
    return bool(certificate.not_valid_after_utc - datetime.now(UTC) > _LEAST_LEFT)


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place as a whole: another runserver may be reading it, or making one."""
    # For its owner alone from the start.
    descriptor, made = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise


def _make() -> bytes:
    """A private key and a certificate that it has signed itself, in PEM."""
    x509, hashes, serialization, ec = _library()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost (channels runserver)")]
    )
    names = [x509.DNSName(each) for each in _NAMES]
    names += [x509.IPAddress(ip_address(each)) for each in _ADDRESSES]
    now = datetime.now(UTC)
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ: of containers and their host, for example.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


def _library() -> tuple[Any, ...]:
    try:
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    except ImportError as error:
        raise StartupFailed(
            "runserver --https makes a certificate with the library cryptography, which is not "
            "installed: pip install cryptography."
        ) from error
    return x509, hashes, serialization, ec
