"""A certificate chain → the peer it proves, against the one bundle of its trust domain. Pure: time comes in.

TLS has accepted the chain against all bundles together before. That proves nothing yet: an authority of one trust
domain can sign any name. So the leaf is read first, its trust domain names the bundle, and only that
bundle may vouch for it (X509-SVID section 5, Workload API section 4.6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from cryptography.x509.verification import VerificationError

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar.identity.bounds import MAX_RSA_BITS, check_chain
from sidecar.identity.bundle import CERTIFICATE_ERRORS, Presented, X509Bundle

MIN_RSA_BITS: Final = 2048

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_BOTH_WAYS: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
# Extensions that a leaf may mark critical: exactly those that are processed here (RFC 5280 section 4.2).
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate in the form of an X.509-SVID, not verified yet. Times in seconds, inclusive."""

    spiffe_id: SpiffeId
    not_before: int
    not_after: int
    certificate: x509.Certificate = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A peer proven by a verified chain. ``fingerprint`` is the hex SHA-256 of the leaf's DER."""

    spiffe_id: SpiffeId
    not_after: int
    fingerprint: str

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain, whose bundle verified the chain."""
        return self.spiffe_id.trust_domain


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of a ``peer`` by a ``bundle``, valid from ``not_before`` and before ``until`` (seconds).

    ``chain``: the certificates presented, one copy for all connections of the peer.
    """

    peer: VerifiedPeer
    bundle: X509Bundle
    not_before: int
    until: int
    chain: tuple[bytes, ...]


def verify_chain(chain: Sequence[bytes], bundles: Mapping[TrustDomain, X509Bundle], *, now: int) -> VerifiedPeer:
    """Return the peer that a chain proves. Errors as ``prove``."""
    return prove(chain, bundles, now=now).peer


def prove(chain: Sequence[bytes], bundles: Mapping[TrustDomain, X509Bundle], *, now: int) -> Proof:
    """Prove a peer from its presented chain (DER, leaf first), in the order of X509-SVID section 5.

    Raises:
        Denied: as ``check_chain``; BAD_SVID (the leaf is not an SVID), UNKNOWN_TRUST_DOMAIN (no bundle),
            UNTRUSTED_CHAIN (the domain's bundle does not vouch), SVID_EXPIRED (not valid yet, or expired; without
            leeway).
    """
    outlines = check_chain(chain)
    leaf = parse_leaf(chain[0])
    bundle = bundles.get(leaf.spiffe_id.trust_domain)
    if bundle is None:
        raise Denied(Reason.UNKNOWN_TRUST_DOMAIN, leaf.spiffe_id.trust_domain)
    intermediates = [
        Presented(_parse_certificate(der), outline) for der, outline in zip(chain[1:], outlines[1:], strict=True)
    ]
    # The path is judged within the leaf's own validity, so that only a genuine SVID is reported as expired.
    at = min(max(now, leaf.not_before), leaf.not_after)
    try:
        path = bundle.verified_chain(Presented(leaf.certificate, outlines[0]), intermediates, at=at)
    except VerificationError as error:
        raise Denied(Reason.UNTRUSTED_CHAIN, leaf.spiffe_id) from error
    # OpenSSL counts the last second as expired: the stricter reading, so that both checks agree.
    if not leaf.not_before <= now < leaf.not_after:
        raise Denied(Reason.SVID_EXPIRED, leaf.spiffe_id)
    peer = VerifiedPeer(leaf.spiffe_id, leaf.not_after, hashlib.sha256(chain[0]).hexdigest())
    not_before = max(int(certificate.not_valid_before_utc.timestamp()) for certificate in path)
    until = min(int(certificate.not_valid_after_utc.timestamp()) for certificate in path)
    return Proof(peer, bundle, not_before, until, tuple(chain))


def parse_leaf(der: bytes) -> Leaf:
    """Read a certificate by the rules for leaves (X509-SVID sections 2 to 4).

    Raises:
        Denied: BAD_SVID.
    """
    certificate = _parse_certificate(der)
    if certificate.serial_number <= 0:
        raise Denied(Reason.BAD_SVID, "its serial number is not positive")
    try:
        spiffe_id = _spiffe_id_of(certificate)
        _check_purpose(certificate)
        _check_strength(certificate)
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
    except SpiffeIdError as error:
        raise Denied(Reason.BAD_SVID, f"its URI is not a workload's SPIFFE ID: {error}") from error
    except CERTIFICATE_ERRORS as error:
        raise Denied(Reason.BAD_SVID, "the leaf cannot be read") from error
    return Leaf(spiffe_id, not_before, not_after, certificate)


def _parse_certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except CERTIFICATE_ERRORS as error:
        raise Denied(Reason.BAD_SVID, "a certificate cannot be read") from error


def _spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """Return the only URI among the alternative names; names of other kinds never identify."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise Denied(Reason.BAD_SVID, "the leaf has no URI") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise Denied(Reason.BAD_SVID, f"the leaf has {len(uris)} URIs")
    return SpiffeId(uris[0])


def _check_purpose(certificate: x509.Certificate) -> None:
    """Require a leaf for both ends of TLS that may not sign certificates (X509-SVID section 4.2 to 4.4)."""
    usage: x509.Extension[x509.KeyUsage] | None = None
    for extension in certificate.extensions:
        value = extension.value
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise Denied(Reason.BAD_SVID, "the leaf has a critical extension that is not understood")
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise Denied(Reason.BAD_SVID, "the leaf is an authority")
        if isinstance(value, x509.ExtendedKeyUsage) and not set(value) >= _BOTH_WAYS:
            raise Denied(Reason.BAD_SVID, "the leaf's extended key usage lacks server or client authentication")
        if isinstance(value, x509.KeyUsage):
            usage = x509.Extension(extension.oid, extension.critical, value)
    if usage is None or not usage.critical or not usage.value.digital_signature:
        raise Denied(Reason.BAD_SVID, "the leaf has no critical key usage with digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise Denied(Reason.BAD_SVID, "the leaf may sign certificates or CRLs")


def _check_strength(certificate: x509.Certificate) -> None:
    if not is_strong(certificate.public_key()):
        raise Denied(Reason.BAD_SVID, "the leaf's key is weak or of an unknown kind")
    hashed_with = certificate.signature_hash_algorithm
    if hashed_with is not None and not isinstance(hashed_with, _HASHES):  # None: Ed25519 has its own
        raise Denied(Reason.BAD_SVID, "the leaf is signed with a weak hash")


def is_strong(key: object) -> bool:
    """Return True for RSA 2048 to 8192, P-256, P-384, P-521 and Ed25519 keys."""
    if isinstance(key, rsa.RSAPublicKey):
        return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey)
