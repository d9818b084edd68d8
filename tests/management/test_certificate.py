"""`runserver --https` makes its certificate once, for this machine, and for its owner alone."""

from __future__ import annotations

import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from channels.exceptions import StartupFailed
from channels.management import certificate
from channels.management.certificate import development_certificate


def read(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_it_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    first = development_certificate()
    content = Path(first.certificate).read_bytes()
    assert development_certificate() == first
    assert Path(first.certificate).read_bytes() == content
    assert first.private_key == first.certificate == str(tmp_path / "channels/development.pem")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(first.certificate)


def test_nobody_else_reads_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    path = Path(development_certificate(folder).private_key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [path]
    path.chmod(0o640)
    with pytest.raises(StartupFailed, match=r"development\.pem may be read by others.*delete"):
        development_certificate(folder)


def test_it_is_for_this_machine_alone(tmp_path: Path) -> None:
    made = read(development_certificate(tmp_path).certificate)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [*map(str, names.get_values_for_type(x509.IPAddress))] == ["127.0.0.1", "::1"]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [*usage] == [ExtendedKeyUsageOID.SERVER_AUTH]
    # What browsers take at most.
    assert made.not_valid_after_utc - datetime.now(UTC) < timedelta(days=398)


def test_one_that_ends_soon_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_VALID", timedelta(days=6))
    old = read(development_certificate(tmp_path).certificate)
    monkeypatch.undo()
    new = read(development_certificate(tmp_path).certificate)
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc - datetime.now(UTC) > timedelta(days=300)


def test_what_is_no_certificate_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "development.pem"
    path.write_text("cut off in the middle")
    path.chmod(0o600)
    assert read(development_certificate(tmp_path).certificate)


def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupFailed, match=r"cannot be kept in .*Set XDG_DATA_HOME"):
        development_certificate(tmp_path / "file" / "below")


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StartupFailed, match=r"pip install cryptography"):
        development_certificate(tmp_path)
