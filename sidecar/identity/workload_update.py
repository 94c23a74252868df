"""Workload API messages → our SVID and the bundles. Pure. A message is the full state: what it lacks is withdrawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sidecar.delegation.keyset import KeySet, KeySetError, parse_jwt_bundle
from sidecar.delegation.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar.identity.bundle import BundleError, X509Bundle, parse_bundle
from sidecar.identity.der import DerError, split_der
from sidecar.identity.generation import IdentityError, parse_x509_svid
from sidecar.identity.source import X509Svid

MAX_TRUST_DOMAINS: Final = 1000
_SCHEME: Final = "spiffe://"


class UpdateError(ValueError):
    """The message cannot be used; what we had stays. The text never quotes it."""


class WithdrawnError(Exception):
    """The message is good and does not have the SVID that is ours: it was withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Update:
    """What an X.509 message says. ``broken`` counts the federated bundles that were lost because they do not parse."""

    svid: X509Svid
    bundles: Mapping[TrustDomain, X509Bundle]
    broken: int


def read_x509_update(
    response: Any,
    *,
    spiffe_id: SpiffeId | None = None,
    hint: str | None = None,
    known: Mapping[TrustDomain, X509Bundle] = MappingProxyType({}),
) -> X509Update:
    """Read a FetchX509SVID message. Our SVID is the first that has the configured ID and hint, else the first.

    Bundles whose bytes did not change are taken from ``known``, as the same objects.

    Raises:
        UpdateError: no SVID at all, or something of ours is malformed.
        WithdrawnError: none of the SVIDs is the configured one.
    """
    chosen = _choose(response.svids, spiffe_id, hint)
    try:
        svid = parse_x509_svid(chosen.spiffe_id, split_der(chosen.x509_svid), chosen.x509_svid_key, hint=chosen.hint)
        own = svid.spiffe_id.trust_domain
        bundles = {own: _bundle(own, chosen.bundle, known)}
    except (IdentityError, BundleError, DerError) as error:
        raise UpdateError(f"our own SVID or bundle: {error}") from error
    federated, broken = _by_domain(response.federated_bundles)
    for trust_domain, der in federated.items():
        if trust_domain == own:  # our own domain's bundle comes with the SVID, from nowhere else
            broken += 1
            continue
        try:
            bundles[trust_domain] = _bundle(trust_domain, der, known)
        except BundleError:
            broken += 1
    return X509Update(svid=svid, bundles=MappingProxyType(bundles), broken=broken)


def read_jwt_bundles(response: Any) -> tuple[Mapping[TrustDomain, KeySet], int]:
    """Read a FetchJWTBundles message: the keys by trust domain, and how many bundles were lost as they do not parse."""
    documents, broken = _by_domain(response.bundles)
    key_sets: dict[TrustDomain, KeySet] = {}
    for trust_domain, document in documents.items():
        try:
            key_sets[trust_domain] = parse_jwt_bundle(document)
        except KeySetError:
            broken += 1
    return MappingProxyType(key_sets), broken


def _choose(svids: Any, spiffe_id: SpiffeId | None, hint: str | None) -> Any:
    if not svids:
        raise UpdateError("no SVID")  # withdrawal is told by PERMISSION_DENIED, never by an empty list
    for svid in svids:
        if (spiffe_id is None or svid.spiffe_id == spiffe_id) and (hint is None or svid.hint == hint):
            return svid
    raise WithdrawnError("none of our SVIDs has the configured SPIFFE ID and hint")


def _bundle(trust_domain: TrustDomain, der: bytes, known: Mapping[TrustDomain, X509Bundle]) -> X509Bundle:
    before = known.get(trust_domain)
    return before if before is not None and before.der == der else parse_bundle(trust_domain, der)


def _by_domain(bundles: Mapping[str, bytes]) -> tuple[dict[TrustDomain, bytes], int]:
    """Keys are trust domains as ``spiffe://name``; SPIRE's tools write the bare name too. Both of one name: neither."""
    if len(bundles) > MAX_TRUST_DOMAINS:
        raise UpdateError("too many trust domains")
    names = Counter(key.removeprefix(_SCHEME) for key in bundles)
    read: dict[TrustDomain, bytes] = {}
    for key, content in bundles.items():
        name = key.removeprefix(_SCHEME)
        try:
            if names[name] == 1:
                read[TrustDomain(name)] = content
        except SpiffeIdError:
            continue
    return read, len(bundles) - len(read)
