"""Trust in hosts certified by the CAs of one file; the file is reloaded when it changes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from delegation_core.errors import Denied, Reason, Unavailable
from sidecar.identity.generation import present
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.ssl_object import ScreenedContext, ScreenedSSLObject

# For TLS 1.2, without DHE: a server chooses its group freely, and a large one costs its client a second of CPU.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


_PUBLIC: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, distroless
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/cert.pem",
)


def public_authorities() -> str:
    """Return the file of public authorities of this system.

    Raises:
        Denied: UPSTREAM_IDENTITY: the system has none.
    """
    found = next((file for file in _PUBLIC if Path(file).is_file()), None)
    if found is None:
        raise Denied(Reason.UPSTREAM_IDENTITY, "this system has no file of public authorities; set ca of the route")
    return found


class FileTrust:
    """The CAs of one file. ``shows``: source of the X.509-SVID to present to servers; None: present no certificate."""

    def __init__(self, ca_file: str, shows: IdentitySource | None = None) -> None:
        self._ca_file = ca_file
        self._shows = shows
        self._seen: tuple[object, ...] | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def shows_svid(self) -> bool:
        """True if our X.509-SVID is presented to a server that requests a certificate."""
        return self._shows is not None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection: the same object until the file or the presented SVID changes.

        Raises:
            Denied: UPSTREAM_IDENTITY, the file is unusable.
            Unavailable: NOT_READY: there is no SVID to present.
        """
        identity = None if self._shows is None else self._shows.current
        if self._shows is not None and identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        try:
            facts = Path(self._ca_file).stat()
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size, identity and identity.svid.chain[0])
            if self._context is None or seen != self._seen:
                self._context = self._load(identity)
                self._seen = seen
        except OSError as error:  # ssl.SSLError is one
            why = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
            raise Denied(Reason.UPSTREAM_IDENTITY, f"the CA file cannot be used ({why})") from error
        return self._context

    def _load(self, identity: Identity | None) -> ssl.SSLContext:
        # No create_default_context: it would add the system's CAs and read SSLKEYLOGFILE.
        context = ScreenedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
        context.sslobject_class = ScreenedSSLObject
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # the screen would not see its certificates
        context.set_ciphers(_CIPHERS)
        context.screen_certificates()
        context.load_verify_locations(cafile=self._ca_file)
        if identity is not None:
            present(context, identity.svid)
        return context
