"""Verification of JWT-SVIDs, which identify workloads (JWT-SVID sections 2 to 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from delegation_core.bearer import JWT_SVID_ALGORITHMS, Bearer
from delegation_core.claims import audience_claim, name_claim
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from delegation_core.signature import verify_signature
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from delegation_core.validity import check_times, parse_validity

LEEWAY_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    """A verified JWT-SVID. A bearer token: whoever holds it can replay it to the same audience."""

    spiffe_id: SpiffeId
    raw: str = field(repr=False)
    expires_at: int
    not_before: int
    leeway_s: int
    fingerprint: str
    kid: str | None  # of the verifying key


def svid_subject(bearer: Bearer) -> SpiffeId:
    """Return the unverified SPIFFE ID in ``sub``, to select the trust domain whose keys verify the JWT-SVID.

    Raises:
        Denied: MALFORMED_TOKEN if ``sub`` is not a workload's SPIFFE ID.
    """
    try:
        return SpiffeId(name_claim(bearer.claims, "sub") or "")
    except SpiffeIdError as error:
        raise Denied(Reason.MALFORMED_TOKEN, "sub is not a SPIFFE ID") from error


def verify_jwt_svid(bearer: Bearer, *, key: VerificationKey, audience: str, now: int) -> JwtSvid:
    """Verify a JWT-SVID with a ``key`` from the bundle of its subject's trust domain.

    Stricter than JWT-SVID section 3: ``audience`` must be the only audience (draft-ietf-oauth-spiffe-client-auth), and
    a token with an ``act`` claim is refused.

    Raises:
        Denied: ALG_NOT_ALLOWED, BAD_SIGNATURE, MALFORMED_TOKEN, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, WRONG_AUDIENCE,
            TOKEN_TYPE.
    """
    verify_signature(bearer, key, JWT_SVID_ALGORITHMS)
    validity = parse_validity(bearer.claims, leeway_s=LEEWAY_S, now=now)
    check_times(validity, now)
    if audience_claim(bearer.claims) != audience:
        raise Denied(Reason.WRONG_AUDIENCE, "the JWT-SVID is for another audience")
    spiffe_id = svid_subject(bearer)
    if "act" in bearer.claims:
        raise Denied(Reason.TOKEN_TYPE, "a token with an actor is not a JWT-SVID")
    return JwtSvid(
        spiffe_id=spiffe_id,
        raw=bearer.raw,
        expires_at=validity.expires_at,
        not_before=validity.not_before,
        leeway_s=validity.leeway_s,
        fingerprint=bearer.fingerprint,
        kid=bearer.kid,
    )
