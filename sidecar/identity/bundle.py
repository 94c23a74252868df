"""Bundles: the authorities of one trust domain, and the search for a path from a chain to one of them.

Bundles of different trust domains are never merged (SPIFFE Federation section 4.2): each has its own store.
"""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from delegation_core.spiffe_id import TrustDomain
from sidecar.identity.bounds import Outline, outline_of
from sidecar.identity.der import split_der

MAX_SIGNATURES: Final = 12  # verified for one chain, each up to 1 ms
_MAX_INTERMEDIATES: Final = 8
_MAX_LOOKED_AT: Final = 64  # paths, complete or not

# Everything that cryptography raises for a certificate that it cannot read.
CERTIFICATE_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are errors
)


class BundleError(ValueError):
    """The bytes are not a bundle. The message never quotes them."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A certificate that a peer presented, within bounds."""

    certificate: x509.Certificate
    outline: Outline


@dataclass(frozen=True, slots=True)
class _Anchor:
    """One authority, and the rules for paths that end in it."""

    der: bytes = field(repr=False)
    key_id: bytes | None = field(repr=False)
    policy: PolicyBuilder = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class X509Bundle:
    """The authorities of one trust domain. Without any, nothing of that domain is trusted.

    Compared by identity: an unchanged bundle stays the same object from one generation to the next.
    """

    trust_domain: TrustDomain
    authorities: tuple[x509.Certificate, ...]
    der: bytes = field(repr=False)
    _anchors: Mapping[bytes, Sequence[_Anchor]] = field(repr=False)  # by subject

    def holds(self, der: bytes) -> bool:
        """Return True if a certificate is one of the authorities."""
        return any(anchor.der == der for named in self._anchors.values() for anchor in named)

    def verified_chain(
        self, leaf: Presented, intermediates: Sequence[Presented], *, at: int
    ) -> tuple[x509.Certificate, ...]:
        """Find a path from the leaf to an authority (RFC 5280 section 6), valid at ``at`` (seconds since the epoch).

        Paths are found by names and key identifiers, shortest first; at most ``MAX_SIGNATURES`` signatures are
        checked. Two shapes fail closed because the library cannot judge them: Ed25519 authorities and URI name
        constraints.

        Raises:
            VerificationError: there is no such path, or too many to check.
        """
        left = MAX_SIGNATURES
        for path in paths(leaf.outline, [one.outline for one in intermediates]):
            between = [intermediates[number] for number in path]
            for anchor in self._signers_of((between or [leaf])[-1].outline):
                left -= len(path) + 1
                if left < 0:
                    raise VerificationError("there are too many possible paths")
                with contextlib.suppress(VerificationError):
                    return _verify(anchor, leaf, between, at)
        raise VerificationError("no path ends in the bundle")

    def _signers_of(self, outline: Outline) -> Iterator[_Anchor]:
        """Yield the authorities that may have signed a certificate, by name and key identifier."""
        for anchor in self._anchors.get(outline.issuer, ()):
            if None in (anchor.key_id, outline.issuer_key_id) or anchor.key_id == outline.issuer_key_id:
                yield anchor


def paths(leaf: Outline, others: Sequence[Outline]) -> Iterator[tuple[int, ...]]:
    """Yield the paths up from a leaf by names, as indices into ``others``, shortest first, without repeated names."""
    waiting: deque[tuple[bytes, tuple[int, ...]]] = deque([(leaf.issuer, ())])
    looked_at = 0
    while waiting and looked_at < _MAX_LOOKED_AT:
        issuer, path = waiting.popleft()
        looked_at += 1
        yield path
        if len(path) < _MAX_INTERMEDIATES and issuer not in {others[number].subject for number in path}:
            waiting += [(one.issuer, (*path, n)) for n, one in enumerate(others) if one.subject == issuer]


def _verify(anchor: _Anchor, leaf: Presented, between: Sequence[Presented], at: int) -> tuple[x509.Certificate, ...]:
    verifier = anchor.policy.time(datetime.datetime.fromtimestamp(at, datetime.UTC)).build_client_verifier()
    try:
        chain = verifier.verify(leaf.certificate, [one.certificate for one in between]).chain
    except CERTIFICATE_ERRORS as error:  # an unreadable name or extension, met only on the path
        raise VerificationError("a certificate of the chain cannot be read") from error
    if len(chain) < 2:
        raise VerificationError("the leaf is an authority itself")
    return tuple(chain)


def parse_bundle(trust_domain: TrustDomain, der: bytes) -> X509Bundle:
    """Read a bundle from concatenated DER certificates, as the Workload API sends them. It may be empty.

    Certificates that may not sign others are left out: otherwise a leaf in the list would be an authority. So are
    those beyond the limits of ``bounds``, which OpenSSL must never see.

    Raises:
        BundleError: an element is not a certificate, OpenSSL cannot read it, or the bundle is too large.
    """
    anchors: defaultdict[bytes, list[_Anchor]] = defaultdict(list)
    authorities: list[x509.Certificate] = []
    try:
        for piece in split_der(der):
            certificate = x509.load_der_x509_certificate(piece)
            outline = outline_of(piece)
            if outline is not None and _may_sign(certificate):
                # A point that is not on its curve, and a name of an unknown type, fail only when they are read.
                certificate.public_key(), certificate.subject
                authorities.append(certificate)
                policy = _policy_of(trust_domain, certificate)
                anchors[outline.subject].append(_Anchor(piece, outline.key_id, policy))
    except CERTIFICATE_ERRORS as error:
        raise BundleError("the bundle holds something that is not a certificate") from error
    _require_readable(authorities)
    return X509Bundle(trust_domain, tuple(authorities), der, dict(anchors))


def with_ambiguous_names(bundles: Iterable[X509Bundle]) -> frozenset[TrustDomain]:
    """Return the trust domains with an authority that OpenSSL may confuse with another, and so refuse valid chains.

    OpenSSL looks issuers up by name and does not try the next one. Key identifiers distinguish them, if each has its
    own: an authority without one matches every certificate that names it.
    """
    named: defaultdict[x509.Name, dict[bytes, bytes | None]] = defaultdict(dict)  # identifiers by key
    homes: defaultdict[x509.Name, set[TrustDomain]] = defaultdict(set)
    for bundle in bundles:
        for authority in bundle.authorities:
            named[authority.subject][_key_of(authority)] = key_identifier_of(authority)
            homes[authority.subject].add(bundle.trust_domain)
    ambiguous = (name for name, keys in named.items() if len(keys) > 1 and not _tell_apart(keys.values()))
    return frozenset(domain for name in ambiguous for domain in homes[name])


def key_identifier_of(authority: x509.Certificate) -> bytes | None:
    """Return the identifier by which certificates name this key (RFC 5280 section 4.2.1.2); None without one."""
    for extension in authority.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            return extension.value.digest
    return None


def _tell_apart(identifiers: Collection[bytes | None]) -> bool:
    return None not in identifiers and len(set(identifiers)) == len(identifiers)


def _key_of(certificate: x509.Certificate) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(encoding, form)


def _require_readable(authorities: Iterable[x509.Certificate]) -> None:
    """Refuse authorities that OpenSSL cannot read, such as a name that is not UTF-8.

    A TLS context holds the authorities of all trust domains: there, one partner's error would cost all others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for authority in authorities:
            context.load_verify_locations(cadata=authority.public_bytes(serialization.Encoding.DER))
    except ssl.SSLError as error:
        raise BundleError("the bundle holds an authority that OpenSSL cannot read") from error


def _may_sign(certificate: x509.Certificate) -> bool:
    """Require cA in BasicConstraints, and keyCertSign in KeyUsage if it is present."""
    constraints = usage = None
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        if isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _policy_of(trust_domain: TrustDomain, authority: x509.Certificate) -> PolicyBuilder:
    """Build the policy of RFC 5280 without the Web PKI's extra rules, which SPIFFE authorities often break."""

    def check_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("a certificate in the path may not sign certificates")

    def check_names(_policy: Policy, _certificate: x509.Certificate, names: x509.SubjectAlternativeName | None) -> None:
        # X509-SVID section 4.1: an authority's SPIFFE ID, if it has one, is that of the trust domain it signs for.
        uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
        if any(uri.startswith("spiffe:") and uri != f"spiffe://{trust_domain}" for uri in uris):
            raise ValueError("a certificate in the path is an authority for another purpose")

    agnostic = Criticality.AGNOSTIC
    ca_policy = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, None)  # the library itself then requires cA
        .may_be_present(x509.KeyUsage, agnostic, check_usage)
        .may_be_present(x509.SubjectAlternativeName, agnostic, check_names)
    )
    return (
        PolicyBuilder()
        .store(Store([authority]))
        .max_chain_depth(_MAX_INTERMEDIATES)
        .extension_policies(ca_policy=ca_policy, ee_policy=ExtensionPolicy.permit_all())
    )
