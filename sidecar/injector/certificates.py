"""The webhook's serving certificate: ``tls.crt`` and ``tls.key`` of a mounted Secret, reloaded when they change."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from delegation_core.errors import ConfigError, Problem

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"


class ServingCertificate:
    """One TLS context for the life of the process; a new pair takes effect with the next handshake."""

    def __init__(self, directory: Path) -> None:
        """Load the pair.

        Raises:
            ConfigError: see ``reload``.
        """
        self._directory = directory
        self._in_force = _server_context()
        self.context = _server_context()
        self.context.sni_callback = self._choose
        self.not_before = self.not_after = 0
        self.reload()

    def reload(self) -> None:
        """Load the pair again. An unusable one changes nothing.

        Raises:
            ConfigError: a file cannot be read, or key and certificate do not match.
        """
        certificate, key = files_in(self._directory)
        fresh = _server_context()
        try:
            leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
            fresh.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            fix = f"mount {CERTIFICATE} and {KEY}, PEM, of one pair"
            raise ConfigError([Problem(str(self._directory), "has no usable pair", fix)]) from error
        self._in_force = fresh  # atomically and last: a handshake never sees half a pair
        self.not_before, self.not_after = (
            int(at.timestamp()) for at in (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
        )

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._in_force

    def valid(self, now: int) -> bool:
        """Return True if the certificate is valid at ``now``, in seconds since the epoch."""
        return self.not_before <= now <= self.not_after

    def until(self) -> str:
        """The certificate's expiry, for people."""
        return datetime.fromtimestamp(self.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def files_in(directory: Path) -> tuple[Path, Path]:
    """The certificate's file and the key's."""
    return directory / CERTIFICATE, directory / KEY


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # every API server since 1.19 speaks it
    context.set_ecdh_curve("prime256v1")  # only this group: a key share of ffdhe8192 keeps a server busy for 0.1 s
    context.num_tickets = 0  # every handshake uses the certificate in force
    return context
