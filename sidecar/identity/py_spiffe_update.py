"""Updates parsed by py-spiffe → our SVID, bundles and keys. Pure. It parses laxly, so our own parsing follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import JwtBundle, JwtBundleSet
from spiffe import X509Svid as TheirX509Svid
from spiffe.workloadapi.x509_context import X509Context

from delegation_core.jwk import JwkError, PublicKey, algorithms_of
from delegation_core.keyset import KeySet, VerificationKey
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar.identity.bundle import BundleError, X509Bundle
from sidecar.identity.generation import IdentityError, parse_x509_svid
from sidecar.identity.source import Identity, X509Svid
from sidecar.identity.update import UpdateError, X509Update, choose, last_good, reuse_or_parse


def read_context(
    context: X509Context,
    *,
    spiffe_id: SpiffeId | None = None,
    held: SpiffeId | None = None,
    known: Mapping[TrustDomain, X509Bundle] = MappingProxyType({}),
) -> X509Update:
    """Read a whole update of py-spiffe, as ``read_x509_update`` reads the original message.

    py-spiffe lists the bundles of all SVIDs in the update among the federated ones. The bundle of an SVID that is not
    ours, of another trust domain, is left out: having such an SVID is no reason to trust its domain.

    Raises:
        UpdateError: several SVIDs that could be ours, or something of ours is malformed.
        WithdrawnError: none of the SVIDs is ours.
    """
    svid = _our_svid(context.x509_svids, spiffe_id, held)
    own = svid.spiffe_id.trust_domain
    beside = {their.spiffe_id.trust_domain.name for their in context.x509_svids} - {own}
    bundles: dict[TrustDomain, X509Bundle] = {}
    broken = 0
    for theirs in context.x509_bundle_set.bundles:
        if theirs.trust_domain.name in beside:
            continue
        der = sorted(authority.public_bytes(Encoding.DER) for authority in theirs.x509_authorities)
        try:
            trust_domain = TrustDomain(theirs.trust_domain.name)
        except SpiffeIdError:
            broken += 1
            continue
        try:
            bundles[trust_domain] = reuse_or_parse(trust_domain, b"".join(der), known)
        except BundleError:
            broken += 1
            if trust_domain != own:  # ours is not a federated one: without it the update is unusable
                bundles |= last_good(trust_domain, known)
    return X509Update(svid=svid, bundles=MappingProxyType(bundles), broken=broken)


def read_svids(svids: Sequence[TheirX509Svid], *, spiffe_id: SpiffeId | None, held: Identity) -> X509Update:
    """Read our SVID from an update whose bundles do not parse, with the bundles of the current identity.

    Raises:
        UpdateError, WithdrawnError: as ``read_context``.
    """
    svid = _our_svid(svids, spiffe_id, held.spiffe_id)
    return X509Update(svid=svid, bundles=held.bundles, broken=0)


def read_jwt_bundle_set(bundles: JwtBundleSet) -> tuple[Mapping[TrustDomain, KeySet], int]:
    """Read the keys by trust domain, and the number of bundles whose trust domain has an invalid name.

    py-spiffe drops ``use`` and ``alg`` of a JWK, so a key is valid for all algorithms of its type.
    """
    key_sets: dict[TrustDomain, KeySet] = {}
    broken = 0
    for bundle in bundles.bundles:
        try:
            key_sets[TrustDomain(bundle.trust_domain.name)] = _key_set(bundle)
        except SpiffeIdError:
            broken += 1
    return MappingProxyType(key_sets), broken


def _our_svid(svids: Sequence[TheirX509Svid], spiffe_id: SpiffeId | None, held: SpiffeId | None) -> X509Svid:
    names = [(str(theirs.spiffe_id), "") for theirs in svids]
    number = choose(names, spiffe_id=spiffe_id, hint=None, held=held)
    chain = [certificate.public_bytes(Encoding.DER) for certificate in svids[number].cert_chain]
    key_der = svids[number].private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    try:
        return parse_x509_svid(names[number][0], chain, key_der)
    except IdentityError as error:
        raise UpdateError(f"our own SVID or bundle: {error}") from error


def _key_set(bundle: JwtBundle) -> KeySet:
    keys: list[VerificationKey] = []
    for kid, key in bundle.jwt_authorities.items():
        try:
            keys.append(VerificationKey(kid, algorithms_of(key), cast("PublicKey", key)))
        except JwkError:
            continue
    return KeySet(keys)
