"""Turns Workload API messages into our SVID and the bundles.

Pure. A message is the full state: absent parts are withdrawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from delegation_core.keyset import KeySet, KeySetError, parse_jwt_bundle
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar.identity.bundle import BundleError, X509Bundle
from sidecar.identity.der import DerError, split_der
from sidecar.identity.generation import IdentityError, parse_x509_svid
from sidecar.identity.update import MAX_TRUST_DOMAINS, UpdateError, X509Update, choose, last_good, reuse_or_parse

_SCHEME: Final = "spiffe://"


def read_x509_update(
    response: Any,
    *,
    spiffe_id: SpiffeId | None = None,
    hint: str | None = None,
    held: SpiffeId | None = None,
    known: Mapping[TrustDomain, X509Bundle] = MappingProxyType({}),
) -> X509Update:
    """Read a FetchX509SVID message; ``choose`` selects our SVID.

    Bundles whose bytes did not change are taken from ``known``, as the same objects; so are federated bundles that are
    malformed now.

    Raises:
        UpdateError: no SVID at all, several that could be ours, or something of ours is malformed.
        WithdrawnError: none of the SVIDs is ours.
    """
    names = [(svid.spiffe_id, svid.hint) for svid in response.svids]
    chosen = response.svids[choose(names, spiffe_id=spiffe_id, hint=hint, held=held)]
    try:
        svid = parse_x509_svid(chosen.spiffe_id, split_der(chosen.x509_svid), chosen.x509_svid_key, hint=chosen.hint)
        own = svid.spiffe_id.trust_domain
        bundles = {own: reuse_or_parse(own, chosen.bundle, known)}
    except (IdentityError, BundleError, DerError) as error:
        raise UpdateError(f"our own SVID or bundle: {error}") from error
    federated, broken = _by_domain(response.federated_bundles)
    for trust_domain, der in federated.items():
        if trust_domain == own:  # our own domain's bundle comes with the SVID only
            broken += 1
            continue
        try:
            bundles[trust_domain] = _bundle(trust_domain, der, known)
        except BundleError:
            broken += 1
            bundles |= last_good(trust_domain, known)
    return X509Update(svid=svid, bundles=MappingProxyType(bundles), broken=broken)


def read_jwt_bundles(
    response: Any, *, known: Mapping[TrustDomain, KeySet] = MappingProxyType({})
) -> tuple[Mapping[TrustDomain, KeySet], int]:
    """Read a FetchJWTBundles message: the keys by trust domain, and the number of malformed bundles.

    The ``known`` keys of a trust domain stay if its bundle is malformed.
    """
    documents, broken = _by_domain(response.bundles)
    key_sets: dict[TrustDomain, KeySet] = {}
    for trust_domain, document in documents.items():
        try:
            key_sets[trust_domain] = _key_set(document)
        except KeySetError:
            broken += 1
            key_sets |= last_good(trust_domain, known)
    return MappingProxyType(key_sets), broken


def _bundle(trust_domain: TrustDomain, der: bytes | None, known: Mapping[TrustDomain, X509Bundle]) -> X509Bundle:
    if der is None:
        raise BundleError("there are two bundles of one trust domain")
    return reuse_or_parse(trust_domain, der, known)


def _key_set(document: bytes | None) -> KeySet:
    if document is None:
        raise KeySetError("there are two bundles of one trust domain")
    return parse_jwt_bundle(document)


def _by_domain(bundles: Mapping[str, bytes]) -> tuple[dict[TrustDomain, bytes | None], int]:
    """Return the bundles by trust domain, and the number of entries left out: invalid names and duplicates.

    A key is a trust domain, as ``spiffe://name`` or, from SPIRE's tools, the bare name. A trust domain with both keys
    has no bundle (None).
    """
    if len(bundles) > MAX_TRUST_DOMAINS:
        raise UpdateError("too many trust domains")
    names = Counter(key.removeprefix(_SCHEME) for key in bundles)
    read: dict[TrustDomain, bytes | None] = {}
    for key, content in bundles.items():
        name = key.removeprefix(_SCHEME)
        try:
            read[TrustDomain(name)] = content if names[name] == 1 else None
        except SpiffeIdError:
            continue
    return read, len(bundles) - len(read)
