"""Verification of a token: signature, times, audience, claims and binding, cheapest first.

The first failed check determines the reason. Before the signature only ``iss`` and the header are used (RFC 8725
section 3). ``decide`` then decides whether the peer may use the token for a call.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.act import MAX_ACT_DEPTH, ActChain, Actor, parse_act
from delegation_core.bearer import Bearer, parse_bearer
from delegation_core.bounded import bytes_of
from delegation_core.claims import audience_claim, audience_values, is_name, name_claim
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from delegation_core.profile import ActorForm, IssuerProfile, TrustedIssuer
from delegation_core.scope import ScopeError, ScopeSet, parse_scope_claim
from delegation_core.signature import verify_signature
from delegation_core.spiffe_id import SpiffeId
from delegation_core.validity import check_times, parse_validity

# Re-exported so that other rooms import verification from one place.
__all__ = [
    "ANY_AUDIENCE",
    "ANY_CERTIFICATE",
    "ActorForm",
    "Grounds",
    "IssuerProfile",
    "TrustedIssuer",
    "VerifiedToken",
    "ancestors_of",
    "check_binding",
    "check_header",
    "check_times",
    "thumbprint_of",
    "verify_again",
    "verify_signature",
    "verify_token",
]

# Claims that are read after verification: to compare with an issued token, and for step-up rules.
_READ_LATER: Final = ("exp", "sub_id", "auth_time", "acr")
ANCESTORS: Final = "ancestor_jtis"  # private claim: no registered one lists the tokens before the parent
MAX_ANCESTORS: Final = 2 * MAX_ACT_DEPTH  # each exchange adds an actor, so valid chains are shorter
_GROUNDS_BYTES: Final = 256  # with the key ID; settings and key are shared objects


class _AnyAudience:
    """Contains every audience."""

    def __contains__(self, audience: object) -> bool:
        return True


class _AnyCertificate:
    """Matches every certificate binding."""


ANY_CERTIFICATE: Final = _AnyCertificate()  # if the presenter is not the token's holder, but its audience
ANY_AUDIENCE: Final = _AnyAudience()  # if the token grants nothing; also allows several audiences, or none


class Grounds:
    """Settings of the issuer (``trusted``), key and key ID with which a token was verified.

    Valid in one process only: pickled, they become None.
    """

    __slots__ = ("key", "kid", "trusted")

    def __init__(self, trusted: object, key: VerificationKey, kid: str | None) -> None:
        self.trusted = trusted
        self.key = key
        self.kid = kid

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A verified token of a trusted issuer. Grants no access by itself. Times in seconds since the epoch.

    ``held_bytes``: approximate memory, to limit caches.
    """

    raw: str = field(repr=False)
    fingerprint: str
    issuer: str
    subject: str = field(repr=False)
    audience: str
    scope: ScopeSet
    expires_at: int
    issued_at: int | None = None
    not_before: int = 0  # the later of nbf and iat
    leeway_s: int = 0
    jti: str | None = None
    client_id: str | None = None
    txn: str | None = None
    parent_jti: str | None = None
    ancestors: tuple[str, ...] = ()  # jti of the tokens before the parent, oldest first
    sid: str | None = None  # the login at its issuer (OpenID Connect Back-Channel Logout section 2.1)
    sub_id: tuple[str, str] | None = field(default=None, repr=False)  # (iss, sub): iss_sub of RFC 9493 section 3.2.3
    certificate_thumbprint: str | None = None  # x5t#S256 of the client certificate it is bound to (RFC 8705)
    chain: ActChain | None = field(default=None, repr=False)
    actor_id: SpiffeId | None = None  # the current actor, mapped by the issuer's profile; None: no mapping
    prior_ids: tuple[SpiffeId, ...] = ()  # earlier actors whose mapped SPIFFE ID differs from their sub
    claims: Mapping[str, object] = field(repr=False)
    grounds: Grounds | None = field(default=None, repr=False, compare=False)
    held_bytes: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_bytes", bytes_of(self) + _GROUNDS_BYTES)


def verify_token(
    bearer: Bearer,
    *,
    issuer: TrustedIssuer,
    key: VerificationKey,
    audiences: Container[str],
    now: int,
    peer_certificate_sha256: str | _AnyCertificate | None = None,
    trusted: object = None,
    slim: bool = False,
) -> VerifiedToken:
    """Verify an access token or a login token by its issuer's profile.

    ``slim``: keep only the claims that are read later, since the token is cached.

    ``audiences``: the token's single audience must be one of these; ``ANY_AUDIENCE`` permits any number of any.
    ``peer_certificate_sha256``: SHA-256 of the presenter's certificate in hexadecimal; None refuses certificate-bound
    tokens, and ``ANY_CERTIFICATE`` skips the check.
    ``trusted``: the settings that contain ``issuer``, if any, for ``Grounds``.

    Raises:
        Denied: WRONG_ISSUER, TOKEN_TYPE, ALG_NOT_ALLOWED, BAD_SIGNATURE, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID,
            WRONG_AUDIENCE, MALFORMED_TOKEN, CNF_MISMATCH, ACT_MALFORMED, ACT_TOO_DEEP; the first that applies.
    """
    profile, claims = issuer.profile, bearer.claims
    check_header(bearer, issuer)
    verify_signature(bearer, key, profile.algorithms)
    _check_kind(bearer, profile)
    validity = parse_validity(claims, leeway_s=profile.leeway_s, now=now, max_lifetime_s=profile.max_lifetime_s)
    check_times(validity, now)
    audience = _audience(claims, profile, audiences)
    subject = _subject(claims, profile)
    _check_values(claims, profile)
    scope = _scope(claims, profile)
    client_id, jti, txn, parent_jti, sid = (
        name_claim(claims, claim) for claim in (profile.client_claim, "jti", "txn", "parent_jti", "sid")
    )
    sub_id = _sub_id(claims)
    thumbprint = _certificate_thumbprint(claims)
    _check_thumbprint(thumbprint, peer_certificate_sha256)
    chain = _chain(claims, issuer, client_id)
    return VerifiedToken(
        raw=bearer.raw,
        fingerprint=bearer.fingerprint,
        issuer=issuer.issuer,
        subject=subject,
        audience=audience,
        scope=scope,
        expires_at=validity.expires_at,
        issued_at=validity.issued_at,
        not_before=validity.not_before,
        leeway_s=validity.leeway_s,
        jti=jti,
        client_id=client_id,
        txn=txn,
        parent_jti=parent_jti,
        ancestors=_ancestors(claims),
        sid=sid,
        sub_id=sub_id,
        certificate_thumbprint=thumbprint,
        chain=chain,
        actor_id=None if chain is None else issuer.actor_id(chain.current),
        prior_ids=() if chain is None else _prior_ids(chain, issuer),
        grounds=Grounds(trusted or issuer, key, bearer.kid),
        claims={claim: claims[claim] for claim in _READ_LATER if claim in claims} if slim else claims,
    )


def verify_again(
    token: VerifiedToken,
    *,
    issuer: TrustedIssuer,
    key: VerificationKey,
    audiences: Container[str],
    now: int,
    peer_certificate_sha256: str | _AnyCertificate | None = None,
    trusted: object = None,
) -> VerifiedToken:
    """Verify a token again with settings and a key that may have changed. Arguments and errors as ``verify_token``.

    With equal settings and key only time, audience and certificate are checked, without parsing or signature check.
    That takes 2 microseconds instead of 200.
    """
    grounds = token.grounds
    if grounds is None or grounds.key != key or grounds.trusted != (trusted or issuer):
        return verify_token(
            parse_bearer(token.raw),
            issuer=issuer,
            key=key,
            audiences=audiences,
            now=now,
            peer_certificate_sha256=peer_certificate_sha256,
            trusted=trusted,
        )
    check_times(token, now)
    if token.audience not in audiences:
        raise Denied(Reason.WRONG_AUDIENCE, "the token is for another audience")
    check_binding(token, peer_certificate_sha256)
    return token


def check_header(bearer: Bearer, issuer: TrustedIssuer) -> None:
    """Check issuer, type and algorithm of an unverified token.

    Raises:
        Denied: WRONG_ISSUER, TOKEN_TYPE, ALG_NOT_ALLOWED.
    """
    if bearer.issuer != issuer.issuer:
        raise Denied(Reason.WRONG_ISSUER, "the token has another issuer")
    if bearer.typ not in issuer.profile.typ:
        raise Denied(Reason.TOKEN_TYPE, "the header names another type of token")
    if bearer.alg not in issuer.profile.algorithms:
        raise Denied(Reason.ALG_NOT_ALLOWED, "the issuer may not use this algorithm")


def check_binding(token: VerifiedToken, peer_certificate_sha256: str | _AnyCertificate | None) -> None:
    """Check that the token is unbound, or bound to this certificate; repeated at each use of a cached verdict.

    Raises:
        Denied: CNF_MISMATCH.
    """
    _check_thumbprint(token.certificate_thumbprint, peer_certificate_sha256)


def ancestors_of(token: VerifiedToken) -> tuple[str, ...]:
    """Return the ``ancestors`` for a token issued in exchange for ``token``."""
    return token.ancestors if token.parent_jti is None else (*token.ancestors, token.parent_jti)


def thumbprint_of(certificate_sha256: str) -> str:
    """Return ``x5t#S256`` (RFC 8705 section 3.1) of a certificate, given its SHA-256 in hexadecimal."""
    return urlsafe_b64encode(bytes.fromhex(certificate_sha256)).rstrip(b"=").decode("ascii")


def _check_kind(bearer: Bearer, profile: IssuerProfile) -> None:
    # Issuers of untyped tokens sign several kinds with one key (RFC 8725 section 3.12): ID tokens, security events, and
    # JWT-SVIDs, which have no client.
    claims = bearer.claims
    if profile.payload_typ is not None and name_claim(claims, "typ") not in profile.payload_typ:
        raise Denied(Reason.TOKEN_TYPE, "the claim typ names another kind of token")
    if not profile.refused_claims.isdisjoint(claims):
        raise Denied(Reason.TOKEN_TYPE, "the token has a claim of another kind of token")
    subject = claims.get("sub")
    names_workload = isinstance(subject, str) and subject.startswith("spiffe://")
    if bearer.typ != "at+jwt" and names_workload and profile.client_claim not in claims:
        raise Denied(Reason.TOKEN_TYPE, "a JWT-SVID is not an access token")


def _audience(claims: Mapping[str, object], profile: IssuerProfile, audiences: Container[str]) -> str:
    claim = next((claim for claim in profile.audience_claims if claim in claims), "aud")
    if audiences is ANY_AUDIENCE:
        return ", ".join(audience_values(claims, claim))
    audience = audience_claim(claims, claim)
    if audience not in audiences:
        raise Denied(Reason.WRONG_AUDIENCE, "the token is for another audience")
    return audience


def _subject(claims: Mapping[str, object], profile: IssuerProfile) -> str:
    subject = name_claim(claims, profile.subject_claim)
    if subject is None:
        raise Denied(Reason.MALFORMED_TOKEN, f"the token has no {profile.subject_claim}")
    if not profile.required_claims <= claims.keys():
        raise Denied(Reason.MALFORMED_TOKEN, "the token lacks a claim that its issuer always sets")
    return subject


def _check_values(claims: Mapping[str, object], profile: IssuerProfile) -> None:
    """Check the claims by which the profile identifies delegated tokens. Raises Denied: TOKEN_TYPE."""
    for claim, values in profile.required_values.items():
        if name_claim(claims, claim) not in values:
            raise Denied(Reason.TOKEN_TYPE, f"the claim {claim} names another kind of token")
    for claim, prefixes in profile.required_prefixes.items():
        if not (name_claim(claims, claim) or "").startswith(tuple(prefixes)):
            raise Denied(Reason.TOKEN_TYPE, f"the claim {claim} names another kind of token")
    for claim, member in profile.required_members.items():
        if member not in _members(claims, claim):
            raise Denied(Reason.TOKEN_TYPE, f"the claim {claim} names another kind of token")
    for claim, members in profile.refused_members.items():
        if claim in claims and any(word in members for word in _members(claims, claim) if isinstance(word, str)):
            raise Denied(Reason.TOKEN_TYPE, f"the claim {claim} names another kind of token")


def _members(claims: Mapping[str, object], claim: str) -> list[object]:
    """Return the words of a claim: a space-separated string or a list. Raises Denied: TOKEN_TYPE."""
    value = claims.get(claim)
    members = value.split(" ") if isinstance(value, str) else value
    if not isinstance(members, list):
        raise Denied(Reason.TOKEN_TYPE, f"the claim {claim} names another kind of token")
    return members


def _chain(claims: Mapping[str, object], issuer: TrustedIssuer, client_id: str | None) -> ActChain | None:
    """Return the actors: those of ``act``, or the client if the issuer's profile reads the actor from it."""
    if not issuer.profile.names_actor_by_client:
        chain = parse_act(claims, max_depth=issuer.profile.max_act_depth)
        if issuer.profile.follows_actor_profile and chain is not None and chain.current.issuer is None:
            raise Denied(Reason.ACT_MALFORMED, "act has no iss, which the issuer's profile requires")
        for number, actor in enumerate(chain.actors if chain is not None else ()):
            if problem := issuer.contradiction(actor, prior=number > 0):
                raise Denied(Reason.ACT_MALFORMED, f"act contradicts itself: {problem}")
        return chain
    if "act" in claims:
        raise Denied(
            Reason.ACT_MALFORMED, "the token has act, but its issuer's profile takes the actor from the client"
        )
    if client_id is None:
        return None
    return ActChain((Actor(client_id),), {"sub": client_id})


def _prior_ids(chain: ActChain, issuer: TrustedIssuer) -> tuple[SpiffeId, ...]:
    mapped = ((actor, issuer.actor_id(actor)) for actor in chain.prior)
    return tuple(found for actor, found in mapped if found is not None and found != actor.subject)


def _ancestors(claims: Mapping[str, object]) -> tuple[str, ...]:
    if ANCESTORS not in claims:
        return ()
    names = claims[ANCESTORS]
    if not isinstance(names, list) or len(names) > MAX_ANCESTORS or not all(map(is_name, names)):
        raise Denied(Reason.MALFORMED_TOKEN, f"{ANCESTORS} is not a list of at most {MAX_ANCESTORS} names")
    return tuple(names)


def _scope(claims: Mapping[str, object], profile: IssuerProfile) -> ScopeSet:
    if profile.scope_claim not in claims:
        return frozenset()
    try:
        return parse_scope_claim(claims[profile.scope_claim], shape=profile.scope_shape)
    except ScopeError as error:
        raise Denied(Reason.MALFORMED_TOKEN, str(error)) from error


def _sub_id(claims: Mapping[str, object]) -> tuple[str, str] | None:
    if "sub_id" not in claims:
        return None
    sub_id = claims["sub_id"]
    if not isinstance(sub_id, dict):
        raise Denied(Reason.MALFORMED_TOKEN, "sub_id is not an object")
    if sub_id.get("format") != "iss_sub":  # other formats are valid but unused
        return None
    issuer, subject = sub_id.get("iss"), sub_id.get("sub")
    if not is_name(issuer) or not is_name(subject):
        raise Denied(Reason.MALFORMED_TOKEN, "sub_id has no valid iss and sub")
    return issuer, subject


def _certificate_thumbprint(claims: Mapping[str, object]) -> str | None:
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict):
        raise Denied(Reason.MALFORMED_TOKEN, "cnf is not an object")
    if confirmation.keys() != {"x5t#S256"}:  # proof of possession for jkt, jwk, kid ... is not supported
        raise Denied(Reason.CNF_MISMATCH, "cnf has another member than x5t#S256, which this sidecar cannot check")
    thumbprint = confirmation["x5t#S256"]
    if not is_name(thumbprint):
        raise Denied(Reason.MALFORMED_TOKEN, "x5t#S256 is not a string")
    return thumbprint


def _check_thumbprint(thumbprint: str | None, peer_certificate_sha256: str | _AnyCertificate | None) -> None:
    if thumbprint is None or isinstance(peer_certificate_sha256, _AnyCertificate):
        return
    if peer_certificate_sha256 is None:
        raise Denied(Reason.CNF_MISMATCH, "the token is bound to a certificate, but the peer has none")
    if thumbprint_of(peer_certificate_sha256) != thumbprint:
        raise Denied(Reason.CNF_MISMATCH, "the token is bound to another certificate")
