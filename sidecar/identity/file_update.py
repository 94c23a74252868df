"""Turns the contents of identity files into our SVID and the bundles. Pure. All files together are the full state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509

from delegation_core.errors import Denied
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import BundleError, X509Bundle
from sidecar.identity.generation import IdentityError, parse_x509_svid
from sidecar.identity.pem import PemError, certificates_of, private_key_of
from sidecar.identity.svid import parse_leaf
from sidecar.identity.update import UpdateError, X509Update, choose, last_good, reuse_or_parse


def read_file_update(
    *,
    certificate: bytes,
    key: bytes,
    bundle: bytes,
    federated: Mapping[TrustDomain, bytes | None],
    spiffe_id: SpiffeId | None = None,
    known: Mapping[TrustDomain, X509Bundle] = MappingProxyType({}),
) -> X509Update:
    """Read PEM files: our chain, leaf first, its key, our own trust domain's authorities, and those of others.

    A federated bundle of None is a missing file. Bundles whose certificates did not change are taken from ``known``, as
    the same objects; so are federated bundles that are malformed now.

    Raises:
        UpdateError: our own chain, key or bundle is malformed, or they do not belong together.
        WithdrawnError: the SVID is not the configured one.
    """
    try:
        chain = certificates_of(certificate)
        name = parse_leaf(chain[0]).spiffe_id if chain else ""
        choose([(name, "")], spiffe_id=spiffe_id, hint=None, held=None)
        svid = parse_x509_svid(name, chain, private_key_of(key))
        own = svid.spiffe_id.trust_domain
        bundles = {own: _bundle(own, bundle, known)}
    except (PemError, IdentityError, BundleError, Denied) as error:
        raise UpdateError(f"our own SVID or bundle: {error}") from error
    broken = 0
    for trust_domain, text in federated.items():
        if text is None or trust_domain == own:  # our own domain's bundle is passed separately
            broken += 1
            continue
        try:
            bundles[trust_domain] = _bundle(trust_domain, text, known)
        except (PemError, BundleError):
            broken += 1
            bundles |= last_good(trust_domain, known)
    return X509Update(svid=svid, bundles=MappingProxyType(bundles), broken=broken)


def _bundle(trust_domain: TrustDomain, text: bytes, known: Mapping[TrustDomain, X509Bundle]) -> X509Bundle:
    bundle = reuse_or_parse(trust_domain, b"".join(certificates_of(text)), known)
    if any(_speaks_for_another(authority, trust_domain) for authority in bundle.authorities):
        raise BundleError("the bundle holds authorities of another trust domain; give each trust domain a file")
    return bundle


def _speaks_for_another(authority: x509.Certificate, trust_domain: TrustDomain) -> bool:
    """Return True if an authority names another trust domain: some tools write all bundles into one file.

    Merged, each could vouch for names of every domain (SPIFFE Federation section 4.2).
    """
    for extension in authority.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
            return any(uri.startswith("spiffe:") and uri != f"spiffe://{trust_domain}" for uri in uris)
    return False
