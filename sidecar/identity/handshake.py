"""The SPIFFE check inside the TLS handshake: no protocol object sees a connection whose peer is not proven.

``ssl`` has no verify callback. So the presented certificates are bounded first (``ssl_object``), OpenSSL then accepts
or refuses them by all bundles together, and ``do_handshake`` verifies them by the bundle of their trust domain alone.
A refusal there is a failed handshake for asyncio, uvloop and aiohttp alike. After OpenSSL's refusal no path is
searched.
"""

from __future__ import annotations

import _ssl
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.bundle import X509Bundle
from sidecar.identity.peer_address import peer_address
from sidecar.identity.proofs import Proofs
from sidecar.identity.source import IdentitySource
from sidecar.identity.ssl_object import HandshakeRefused as HandshakeRefused
from sidecar.identity.ssl_object import ScreenedSSLObject
from sidecar.identity.svid import VerifiedPeer, parse_leaf

Clock = Callable[[], float]
OnRefused = Callable[[Reason, str, str | None], None]  # reason, detail for the record, the peer's address


# OpenSSL's reasons that are not about trust in a chain. Any other means that the peer does not speak our TLS.
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CLIENT_CERT,
    "BAD_SIGNATURE": Reason.BAD_SVID,  # it does not hold the certificate's key
    "WRONG_SIGNATURE_TYPE": Reason.BAD_SVID,
    "WRONG_CERTIFICATE_TYPE": Reason.BAD_SVID,
    "UNKNOWN_CERTIFICATE_TYPE": Reason.BAD_SVID,
    "UNABLE_TO_FIND_PUBLIC_KEY_PARAMETERS": Reason.BAD_SVID,
    "EXCESSIVE_MESSAGE_SIZE": Reason.UNTRUSTED_CHAIN,  # more than 100 KB of certificates
}
_CERTIFICATE_LIBRARIES: Final = frozenset({"ASN1", "X509", "EVP", "RSA", "EC"})  # a certificate it cannot read
_EXPIRED_CODES: Final = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
NOT_OVER: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError)
PEER_LEFT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


class PeerGuard:
    """A verified peer and its proof, used to re-evaluate trust at each later request."""

    __slots__ = ("_bundle", "_chain", "_proofs", "_until", "peer", "source")

    def __init__(self, source: IdentitySource, chain: Sequence[bytes], proofs: Proofs, *, now: int) -> None:
        """Prove the peer.

        Raises:
            Denied: as ``prove``.
            Unavailable: NOT_READY: without an identity of our own no peer is trusted.
        """
        self.source = source
        self._chain = tuple(chain)
        self._proofs = proofs
        self._bundle: X509Bundle | None = None
        self._until = 0  # the earliest expiry on the peer's path: an authority's may come before the leaf's
        self.peer = self._verify(now)

    @property
    def until(self) -> int:
        """The earliest expiry on the peer's path (seconds since the epoch): the leaf's or an authority's."""
        return self._until

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates that the peer presented, DER, leaf first."""
        return self._chain

    def check(self, now: int) -> VerifiedPeer:
        """Return the peer if it is still trusted. Cheap while its bundle has not changed.

        Raises:
            Denied: SVID_EXPIRED, or its trust domain's bundle is gone or no longer vouches for it.
            Unavailable: NOT_READY, our own identity is gone.
        """
        if now >= self.peer.not_after:
            raise Denied(Reason.SVID_EXPIRED, self.peer.spiffe_id)
        identity = self.source.current
        if identity is None or now >= self._until or identity.bundles.get(self.peer.trust_domain) is not self._bundle:
            self.peer = self._verify(now)
        return self.peer

    def _verify(self, now: int) -> VerifiedPeer:
        identity = self.source.current
        if identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        proof = self._proofs.prove(self._chain, identity.bundles, now=now)
        self._chain = proof.chain
        self._bundle = proof.bundle
        self._until = proof.until
        return proof.peer


@dataclass(frozen=True, slots=True)
class Binding:
    """Settings of a delegating context's connections. ``expected`` pins the peer."""

    source: IdentitySource
    expected: SpiffeId | None = None
    on_refused: OnRefused | None = None
    clock: Clock = time.time
    proofs: Proofs = field(default_factory=Proofs)


class VerifyingSSLObject(ScreenedSSLObject):
    """An SSL object whose handshake succeeds only with a proven peer. Before ``bind`` it refuses every peer."""

    binding: Binding | None = None
    guard: PeerGuard | None = None
    address: str | None = None
    shown: str | None = None  # hexadecimal SHA-256 of the leaf that we show; None: no identity

    def bind(self, binding: Binding) -> None:
        """Set the identity and trust to use. The peer's address is taken from the context variable."""
        self.binding = binding
        self.address = peer_address.get()

    def check_certificates(self, certificates: tuple[bytes, ...]) -> None:
        """Check the certificates, unless they have a cached proof. Errors as the base class."""
        if self.binding is None or certificates not in self.binding.proofs:
            super().check_certificates(certificates)

    def do_handshake(self) -> None:
        """Advance the handshake by one step; the last step proves the peer.

        Raises:
            HandshakeRefused: the peer is refused.
            ssl.SSLError: incomplete (SSLWantReadError), or the other end disconnected or refused us.
        """
        binding = self.binding
        if binding is None or binding.source.current is None:
            self._refuse(Reason.NOT_READY, "this workload has no identity")
        try:
            self.shake()
            self.guard = self._prove(binding)
            self.keep_presented(self.guard.chain)
        except SidecarError as error:
            self._refuse(error.reason, error.detail, cause=error)
        except NOT_OVER + PEER_LEFT:
            raise
        except ssl.SSLError as error:
            if is_refusal(error):
                raise
            self._refuse(*self._why(binding, error), cause=error)

    def tell_refused(self, reason: Reason, detail: str) -> None:
        """Report the peer as refused."""
        if self.binding is not None and self.binding.on_refused is not None:
            self.binding.on_refused(reason, detail, self.address)

    def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002 - the base class's signature
        """Return the leaf's DER; {} for the parsed form that event loops request: names are read from bytes only."""
        return super().getpeercert(binary_form=True) if binary_form else {}

    def _prove(self, binding: Binding) -> PeerGuard:
        if self.session_reused:  # a resumed session skips certificates, so it would outlive expiry and withdrawal
            raise Denied(Reason.UNTRUSTED_CHAIN, "the session was resumed")
        chain = self.presented  # kept once for the life of the connection: it may be 32 KiB
        if tuple(presented_chain(self)) != chain:  # OpenSSL must have read the certificates that were bounded
            raise Denied(Reason.BAD_SVID, "the certificates differ from those in the handshake")
        try:
            guard = PeerGuard(binding.source, chain, binding.proofs, now=int(binding.clock()))
        except Denied as denied:
            raise self._wrong_bundle(binding, denied) from denied
        if binding.expected is not None and guard.peer.spiffe_id != binding.expected:
            raise Denied(Reason.UPSTREAM_IDENTITY, f"it is {guard.peer.spiffe_id}, not {binding.expected}")
        return guard

    def _wrong_bundle(self, binding: Binding, denied: Denied) -> Denied:
        """Return WRONG_BUNDLE if OpenSSL's path ended at an authority that is not in the peer's own bundle."""
        identity, path = binding.source.current, verified_chain(self)
        if denied.reason is not Reason.UNTRUSTED_CHAIN or identity is None or not path:
            return denied
        bundle = identity.bundles.get(parse_leaf(self.presented[0]).spiffe_id.trust_domain)
        if bundle is None or bundle.holds(path[-1]):
            return denied
        return Denied(Reason.WRONG_BUNDLE, denied.detail)

    def _why(self, binding: Binding, error: ssl.SSLError) -> tuple[Reason, str]:
        """Find the reason behind OpenSSL's refusal, from its code and the unverified leaf."""
        if not isinstance(error, ssl.SSLCertVerificationError):
            return reason_of(error), error.reason or ""
        identity = binding.source.current
        if identity is None:
            return Reason.NOT_READY, "this workload has no identity"
        if not self.presented:
            return Reason.UNTRUSTED_CHAIN, error.verify_message
        try:
            leaf = parse_leaf(self.presented[0])
        except Denied as denied:
            return denied.reason, denied.detail
        if leaf.spiffe_id.trust_domain not in identity.bundles:
            return Reason.UNKNOWN_TRUST_DOMAIN, leaf.spiffe_id.trust_domain
        # OpenSSL does not report which certificate of the path has expired.
        expired = error.verify_code in _EXPIRED_CODES and not leaf.not_before <= binding.clock() < leaf.not_after
        return Reason.SVID_EXPIRED if expired else Reason.UNTRUSTED_CHAIN, error.verify_message

    def _refuse(self, reason: Reason, detail: str, *, cause: Exception | None = None) -> NoReturn:
        self.guard = None
        self.tell_refused(reason, detail)
        raise HandshakeRefused(reason, detail) from cause


def reason_of(error: ssl.SSLError) -> Reason:
    """Return the reason code for an error of OpenSSL that is not about trust in a chain."""
    known = _REASONS.get(error.reason or "")
    if known is not None:
        return known
    return Reason.BAD_SVID if error.library in _CERTIFICATE_LIBRARIES else Reason.TLS_VERSION


def is_refusal(error: ssl.SSLError) -> bool:
    """Return True for an alert of the other end, except for the TLS version, which counts as our refusal."""
    reason = error.reason or ""
    return "_ALERT_" in reason and not reason.endswith("_ALERT_PROTOCOL_VERSION")


def presented_chain(ssl_object: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the peer sent, DER, leaf first; empty if this Python cannot tell."""
    return _chain(ssl_object, "get_unverified_chain")


def verified_chain(ssl_object: ssl.SSLObject) -> list[bytes]:
    """Return the path that OpenSSL accepted, DER, from the leaf to an authority; empty if this Python cannot tell."""
    return _chain(ssl_object, "get_verified_chain")


def _chain(ssl_object: ssl.SSLObject, getter: str) -> list[bytes]:
    """Return the DER certificates of a chain. Before Python 3.13 the getter is a method of a private object."""
    public = getattr(ssl_object, getter, None)
    if public is not None:
        return list(public() or ())
    private = getattr(getattr(ssl_object, "_sslobj", None), getter, None)
    certificates = private() if private is not None else None
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in certificates or ()]
