"""Messages of the Workload API: the identities and bundles of a process. Each holds the full state (section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delegation_core.bearer import Bearer, parse_jwt_svid
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import verify_jwt_svid
from delegation_core.keyset import VerificationKey, parse_jwt_bundle
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError, TrustDomain
from sidecar.identity import workload_pb as pb
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry
from sidecar_dev.pki import IssuedSvid, TrustDomainAuthority
from sidecar_dev.registry import NoIdentityError, Registry, half_life


@dataclass(frozen=True, slots=True)
class State:
    """Complete answer for one process; from ``renew_at`` on (seconds since the epoch) it must be renewed."""

    message: Any
    renew_at: float = float("inf")


def x509_svids(registry: Registry, peer: Peer | None) -> State:
    """Answer FetchX509SVID.

    Raises:
        NoIdentityError: the process has no identity; the other functions raise it too.
    """
    entitlement = registry.entitlement(peer)
    issued = {entry: registry.svid(entry) for entry in entitlement.entries}
    message = pb.X509SVIDResponse(
        svids=[
            _x509_svid(entry, svid, entitlement.own[entry.spiffe_id.trust_domain]) for entry, svid in issued.items()
        ],
        federated_bundles=_x509_bundles(entitlement.federated),
    )
    return State(message, min(map(half_life, issued.values())))


def x509_bundles(registry: Registry, peer: Peer | None) -> State:
    """Answer FetchX509Bundles."""
    return State(pb.X509BundlesResponse(bundles=_x509_bundles(registry.entitlement(peer).known)))


def jwt_bundles(registry: Registry, peer: Peer | None) -> State:
    """Answer FetchJWTBundles."""
    known = registry.entitlement(peer).known
    bundles = {_id(domain): authority.jwt_bundle() for domain, authority in known.items()}
    return State(pb.JWTBundlesResponse(bundles=bundles))


def jwt_svids(registry: Registry, peer: Peer | None, audiences: Sequence[str], spiffe_id: str) -> Any:
    """Answer FetchJWTSVID. An empty ``spiffe_id`` asks for all identities of the process."""
    entitlement = registry.entitlement(peer)
    entries = [entry for entry in entitlement.entries if spiffe_id in ("", entry.spiffe_id)]
    if not entries:
        raise NoIdentityError
    now = int(registry.now)
    return pb.JWTSVIDResponse(
        svids=[
            pb.JWTSVID(
                spiffe_id=entry.spiffe_id,
                svid=entitlement.own[entry.spiffe_id.trust_domain].issue_jwt(entry.spiffe_id, audiences, issued_at=now),
                hint=entry.hint,
            )
            for entry in entries
        ]
    )


def validate_jwt_svid(registry: Registry, peer: Peer | None, audience: str, svid: str) -> Any:
    """Answer ValidateJWTSVID, with the bundle of the subject's trust domain, if the process may have that bundle.

    Raises:
        Denied: the JWT-SVID is not valid.
    """
    known = registry.entitlement(peer).known
    bearer = parse_jwt_svid(svid)
    key = _key_of(bearer, known)
    verified = verify_jwt_svid(bearer, key=key, audience=audience, now=int(registry.now))
    response = pb.ValidateJWTSVIDResponse(spiffe_id=verified.spiffe_id)
    response.claims.update(bearer.claims)
    return response


def _key_of(bearer: Bearer, known: Mapping[TrustDomain, TrustDomainAuthority]) -> VerificationKey:
    """Return the key of a JWT-SVID; its unverified subject only selects the bundle. Raises Denied, without one."""
    subject = bearer.claims.get("sub")
    try:
        authority = known.get(SpiffeId(subject if isinstance(subject, str) else "").trust_domain)
    except SpiffeIdError as error:
        raise Denied(Reason.MALFORMED_TOKEN) from error
    key = parse_jwt_bundle(authority.jwt_bundle()).find(bearer.kid) if authority else None
    if key is None:
        raise Denied(Reason.UNKNOWN_KEY)
    return key


def _x509_svid(entry: Entry, svid: IssuedSvid, authority: TrustDomainAuthority) -> Any:
    return pb.X509SVID(
        spiffe_id=entry.spiffe_id,
        x509_svid=b"".join(svid.chain_der),
        x509_svid_key=svid.key_der,
        bundle=authority.bundle_der(),
        hint=entry.hint,
    )


def _x509_bundles(authorities: Mapping[TrustDomain, TrustDomainAuthority]) -> dict[str, bytes]:
    return {_id(domain): authority.bundle_der() for domain, authority in authorities.items()}


def _id(trust_domain: TrustDomain) -> str:
    """Return the SPIFFE ID of a trust domain, the key of its bundle."""
    return f"spiffe://{trust_domain}"
