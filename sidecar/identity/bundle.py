"""The authorities of one trust domain, and the one question they answer: does this chain end in one of you?

Bundles of different trust domains are never merged (SPIFFE Federation section 4.2): each has a store of its own.
"""

from __future__ import annotations

import datetime
import ssl
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
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

from sidecar.delegation.spiffe_id import TrustDomain
from sidecar.identity.der import split_der

_MAX_INTERMEDIATES: Final = 8

# Everything cryptography raises for a certificate it cannot read.
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
    """The bytes are no bundle. The message never quotes them."""


@dataclass(frozen=True, slots=True, eq=False)
class X509Bundle:
    """What vouches for one trust domain. No authorities means: nothing is trusted of that domain.

    Compared by identity: an unchanged bundle stays the same object from one generation to the next.
    """

    trust_domain: TrustDomain
    authorities: tuple[x509.Certificate, ...]
    subjects: frozenset[x509.Name] = field(repr=False)  # of the authorities
    der: bytes = field(repr=False)
    _policy: PolicyBuilder | None = field(repr=False)

    def verified_chain(
        self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], *, at: int
    ) -> tuple[x509.Certificate, ...]:
        """Find a path from the leaf to an authority (RFC 5280 section 6), valid at ``at`` (seconds since the epoch).

        Two shapes fail closed because the library cannot judge them: Ed25519 authorities and URI name constraints.

        Raises:
            VerificationError: there is none.
        """
        if self._policy is None:
            raise VerificationError("the bundle is empty")
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        verifier = self._policy.time(moment).build_client_verifier()
        try:
            chain = verifier.verify(leaf, list(intermediates)).chain
        except CERTIFICATE_ERRORS as error:  # a name or extension it cannot read, met only on the way
            raise VerificationError("a certificate of the chain cannot be read") from error
        if len(chain) < 2:
            raise VerificationError("the leaf is an authority itself")
        return tuple(chain)


def parse_bundle(trust_domain: TrustDomain, der: bytes) -> X509Bundle:
    """Read a bundle from concatenated DER certificates, as the Workload API sends them. Nothing at all is a bundle too.

    Certificates that may not sign others are left out, else a leaf that got into the list would be an authority. So
    are those with a key of a kind that is not known here.

    Raises:
        BundleError: something in it is no certificate, or none to OpenSSL, or it is too large.
    """
    try:
        certificates = [x509.load_der_x509_certificate(piece) for piece in split_der(der)]
        authorities = tuple(filter(_usable, certificates))
        subjects = frozenset(authority.subject for authority in authorities)
    except CERTIFICATE_ERRORS as error:
        raise BundleError("the bundle holds something that is no certificate") from error
    _require_readable(authorities)
    policy = _policy_of(trust_domain, authorities) if authorities else None
    return X509Bundle(trust_domain, authorities, subjects, der, policy)


def with_ambiguous_names(bundles: Iterable[X509Bundle]) -> frozenset[TrustDomain]:
    """Trust domains with an authority that OpenSSL cannot tell from another one, so that chains may be refused wrongly.

    It looks issuers up by name and does not come back to try the next one. Key identifiers tell them apart, if each has
    one of its own: one that has none fits every certificate that names it.
    """
    named: defaultdict[x509.Name, dict[bytes, bytes | None]] = defaultdict(dict)  # identifiers by key
    homes: defaultdict[x509.Name, set[TrustDomain]] = defaultdict(set)
    for bundle in bundles:
        for authority in bundle.authorities:
            named[authority.subject][_key_of(authority)] = key_identifier_of(authority)
            homes[authority.subject].add(bundle.trust_domain)
    ambiguous = (name for name, keys in named.items() if len(keys) > 1 and not _told_apart(keys.values()))
    return frozenset(domain for name in ambiguous for domain in homes[name])


def key_identifier_of(authority: x509.Certificate) -> bytes | None:
    """How certificates name the key that signed them (RFC 5280 section 4.2.1.2); None if it does not say."""
    for extension in authority.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            return extension.value.digest
    return None


def _told_apart(identifiers: Collection[bytes | None]) -> bool:
    return None not in identifiers and len(set(identifiers)) == len(identifiers)


def _key_of(certificate: x509.Certificate) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(encoding, form)


def _require_readable(authorities: Iterable[x509.Certificate]) -> None:
    """Refuse what OpenSSL does not read, such as a name that is no UTF-8.

    A TLS context holds the authorities of all trust domains: found out there, one partner's would cost every other's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for authority in authorities:
            context.load_verify_locations(cadata=authority.public_bytes(serialization.Encoding.DER))
    except ssl.SSLError as error:
        raise BundleError("the bundle holds an authority that OpenSSL cannot read") from error


def _usable(certificate: x509.Certificate) -> bool:
    try:
        certificate.public_key()
    except UnsupportedAlgorithm:
        return False
    return _may_sign(certificate)


def _may_sign(certificate: x509.Certificate) -> bool:
    """BasicConstraints say cA, and KeyUsage, where present, says keyCertSign."""
    constraints = usage = None
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        if isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _policy_of(trust_domain: TrustDomain, authorities: tuple[x509.Certificate, ...]) -> PolicyBuilder:
    """RFC 5280 without the Web PKI's extra demands, which the authorities of SPIFFE deployments often do not meet."""

    def check_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("a certificate in the path may not sign certificates")

    def check_names(_policy: Policy, _certificate: x509.Certificate, names: x509.SubjectAlternativeName | None) -> None:
        # X509-SVID section 4.1: an authority's SPIFFE ID, if it has one, is that of the trust domain it signs for.
        uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
        if any(uri.startswith("spiffe:") and uri != f"spiffe://{trust_domain}" for uri in uris):
            raise ValueError("a certificate in the path is an authority of something else")

    agnostic = Criticality.AGNOSTIC
    ca_policy = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, None)  # the library itself then insists on cA
        .may_be_present(x509.KeyUsage, agnostic, check_usage)
        .may_be_present(x509.SubjectAlternativeName, agnostic, check_names)
    )
    return (
        PolicyBuilder()
        .store(Store(list(authorities)))
        .max_chain_depth(_MAX_INTERMEDIATES)
        .extension_policies(ca_policy=ca_policy, ee_policy=ExtensionPolicy.permit_all())
    )
