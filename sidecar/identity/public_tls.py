"""TLS of a listener for clients outside the mesh: the operator's certificate, reloaded when its files change.

Clients need no certificate. As at every listener a ClientHello is bounded before OpenSSL reads it, records without
data are limited, nothing is resumed, and no handshake begins on an established connection.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from delegation_core.errors import ConfigError, Problem, Reason, SidecarError
from sidecar.identity.file_reader import Present, Watched, facts_of, look_at
from sidecar.identity.generation import ALPN
from sidecar.identity.handshake import NOT_OVER, PEER_LEFT, OnRefused, is_refusal, reason_of
from sidecar.identity.memory_file import new_memory_file, path_of
from sidecar.identity.peer_address import peer_address
from sidecar.identity.ssl_object import HandshakeRefused, ScreenedContext, ScreenedSSLObject

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTlsSettings:
    """The PEM files: the certificate with its intermediates, and its key."""

    certificate: Path
    key: Path


class PublicSSLObject(ScreenedSSLObject):
    """An SSL object that reports refused handshakes."""

    on_refused: OnRefused | None = None
    address: str | None = None

    def do_handshake(self) -> None:
        """Advance the handshake by one step. Raises as the base class."""
        try:
            self.shake()
        except SidecarError as error:
            self.tell_refused(error.reason, error.detail)
            raise HandshakeRefused(error.reason, error.detail) from error
        except NOT_OVER + PEER_LEFT:
            raise
        except ssl.SSLError as error:
            if not is_refusal(error):
                self.tell_refused(reason_of(error), error.reason or "")
            raise

    def tell_refused(self, reason: Reason, detail: str) -> None:
        """Report the client as refused."""
        if self.on_refused is not None:
            self.on_refused(reason, detail, self.address)


class PublicContext(ScreenedContext):
    """A context for event loops: each new connection gets the certificate that was loaded last."""

    inner: ssl.SSLContext | None = None
    on_refused: OnRefused | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ScreenedSSLObject:
        """Start a connection; it fails if no certificate has been loaded yet."""
        inner = self.inner
        if inner is None:
            return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        made: Any = inner.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, PublicSSLObject)  # noqa: S101 - for the type only
        made.on_refused, made.address = self.on_refused, peer_address.get()
        return made


class PublicCertificate:
    """The operator's certificate. ``not_after`` is its end (seconds since the epoch), None before the first load."""

    def __init__(self, settings: PublicTlsSettings, *, on_refused: OnRefused | None = None) -> None:
        self._settings = settings
        self.context = _bare_context(PublicContext)
        assert isinstance(self.context, PublicContext)  # noqa: S101 - for the type only
        self._follower = self.context
        self._follower.on_refused = on_refused
        self.not_after: int | None = None
        self.error: str | None = None

    def fingerprint(self) -> Hashable:
        """Return a value that differs whenever the files do."""
        return facts_of(self._settings.certificate), facts_of(self._settings.key)

    def load(self) -> None:
        """Read the files, and use them for new connections.

        Raises:
            ConfigError: they cannot be used; those loaded before stay in use.
        """
        try:
            context, not_after = self._read()
        except ConfigError as error:
            self.error = "; ".join(problem.wrong for problem in error.problems)
            raise
        self._follower.inner, self.not_after, self.error = context, not_after, None

    async def reload(self) -> None:
        """Load for a watcher of files. Errors as ``load``."""
        self.load()

    def try_to_load(self) -> None:
        """Load at the start. Unusable files are not fatal: ``error`` holds the problem until a later load."""
        try:
            self.load()
        except ConfigError:
            return

    def _read(self) -> tuple[ssl.SSLContext, int]:
        settings = self._settings
        files = (("certificate", Watched(settings.certificate)), ("key", Watched(settings.key, private=True)))
        contents = []
        for field, file in files:
            seen = look_at(file)
            if not isinstance(seen, Present):
                raise _problem(field, seen.why)
            contents.append(seen.content)
        certificate, key = contents
        try:
            leaf = x509.load_pem_x509_certificate(certificate)
        except ValueError as error:
            raise _problem("certificate", "the file holds no PEM certificate") from error
        context = _bare_context(ScreenedContext)
        context.sslobject_class = PublicSSLObject
        try:
            with os.fdopen(new_memory_file("door"), "wb") as file_of_both:
                file_of_both.write(key + b"\n" + certificate)
                file_of_both.flush()
                context.load_cert_chain(path_of(file_of_both.fileno()), password=lambda: b"")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; an encrypted key is a ValueError
            raise _problem("key", "the key cannot be read, or does not match the certificate") from error
        return context, int(leaf.not_valid_after_utc.timestamp())


def _problem(field: str, wrong: str) -> ConfigError:
    return ConfigError([Problem(f"entry.door.{field}", wrong, "write a key and a certificate that match")])


def _bare_context(kind: type[ssl.SSLContext]) -> ssl.SSLContext:
    # No create_default_context: it would read SSLKEYLOGFILE.
    context = kind(ssl.PROTOCOL_TLS_SERVER)  # asks for no client certificate
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(list(ALPN))
    return context
