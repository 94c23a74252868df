"""The operator's certificate: loaded, followed, and kept while what lies there is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from delegation_core.errors import ConfigError
from sidecar.identity.public_tls import PublicCertificate, PublicContext, PublicTlsSettings
from tests.integration.door_world import WebCertificates


def followed(folder: Path) -> tuple[WebCertificates, PublicCertificate]:
    files = WebCertificates(folder)
    return files, PublicCertificate(PublicTlsSettings(certificate=files.certificate, key=files.key))


def test_a_pair_is_loaded_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    files, certificate = followed(tmp_path)
    assert certificate.not_after is None
    certificate.load()
    context = certificate.context
    assert isinstance(context, PublicContext)
    first, before = context.inner, certificate.fingerprint()
    files.issue("renewed.example")
    assert certificate.fingerprint() != before
    certificate.load()
    assert context.inner is not first
    assert (certificate.not_after is not None, certificate.error) == (True, None)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda files: files.key.unlink(), "is missing"),
        (lambda files: files.key.chmod(0o644), "accessible to users other than"),
        (lambda files: files.key.write_text("rubbish"), "key cannot be read"),
        (lambda files: files.certificate.write_text("rubbish"), "no PEM certificate"),
        (lambda files: files.certificate.write_bytes(files.ca.read_bytes()), "does not match the certificate"),
    ],
    ids=["gone", "open to others", "no key", "no certificate", "another pair"],
)
def test_what_cannot_be_used_changes_nothing(tmp_path: Path, spoil: object, told: str) -> None:
    files, certificate = followed(tmp_path)
    certificate.load()
    context = certificate.context
    assert isinstance(context, PublicContext)
    before = context.inner
    assert callable(spoil)
    spoil(files)
    with pytest.raises(ConfigError):
        certificate.load()
    assert context.inner is before
    assert told in (certificate.error or "")
    files.issue()
    files.key.chmod(0o600)
    certificate.load()
    assert certificate.error is None


def test_without_a_certificate_it_waits(tmp_path: Path) -> None:
    files, certificate = followed(tmp_path)
    files.certificate.unlink()
    certificate.try_to_load()
    assert certificate.not_after is None
    assert "is missing" in (certificate.error or "")
