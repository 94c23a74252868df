"""Verification of transaction tokens (draft-ietf-oauth-transaction-tokens-09), the context of a chain in a domain.

They accompany access tokens and are not credentials. No decision uses them: they are verified so that the forwarded
token, and ``txn`` in records, are authentic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from delegation_core.bearer import Bearer
from delegation_core.bounded import bytes_of
from delegation_core.claims import audience_claim, name_claim
from delegation_core.errors import Denied, Reason
from delegation_core.keyset import VerificationKey
from delegation_core.profile import DEFAULT_ALGORITHMS
from delegation_core.scope import ScopeError, parse_scope_claim
from delegation_core.signature import verify_signature
from delegation_core.spiffe_id import TrustDomain
from delegation_core.validity import check_times, parse_validity
from delegation_core.verify import VerifiedToken

LEEWAY_S: Final = 30
_REQUIRED: Final = ("iat", "txn", "sub", "scope", "req_wl")  # besides aud and exp (section 9.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnSource:
    """The service that issues a trust domain's transaction tokens. ``issuer``: its identifier, which selects its keys.

    ``subject_issuer``: the issuer of the access tokens whose ``sub`` the service repeats.
    """

    trust_domain: TrustDomain
    issuer: str
    subject_issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnToken:
    """A verified transaction token. Times in seconds since the epoch; ``held_bytes``: its approximate memory.

    ``subject`` is a ``sub`` of ``subject_issuer``.
    """

    raw: str = field(repr=False)
    txn: str
    subject_issuer: str
    subject: str = field(repr=False)
    expires_at: int
    not_before: int
    leeway_s: int = LEEWAY_S
    held_bytes: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_bytes", bytes_of(self))

    def check_beside(self, token: VerifiedToken) -> None:
        """Check that issuer and subject, and ``txn`` if the access token has one, equal those of the access token.

        ``sub_id`` is ignored, since a foreign issuer may write any value.

        Raises:
            Denied: TXN_TOKEN_REFUSED.
        """
        if self.subject_issuer != token.issuer:
            raise Denied(Reason.TXN_TOKEN_REFUSED, "the access token's issuer is not the issuer of sub")
        if self.subject != token.subject:
            raise Denied(Reason.TXN_TOKEN_REFUSED, "sub differs from the access token's")
        if token.txn is not None and self.txn != token.txn:
            raise Denied(Reason.TXN_TOKEN_REFUSED, "txn differs from the access token's")


def verify_txn_token(bearer: Bearer, *, source: TxnSource, key: VerificationKey, now: int) -> TxnToken:
    """Verify a parsed transaction token with a ``key`` of its service.

    Raises:
        Denied: ALG_NOT_ALLOWED, BAD_SIGNATURE, MALFORMED_TOKEN, WRONG_ISSUER (an ``iss`` other than the service),
            TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, WRONG_AUDIENCE.
    """
    claims = bearer.claims
    verify_signature(bearer, key, DEFAULT_ALGORITHMS)
    if claims.get("iss", source.issuer) != source.issuer:
        raise Denied(Reason.WRONG_ISSUER, "iss is not the trust domain's service")
    validity = parse_validity(claims, leeway_s=LEEWAY_S, now=now)
    check_times(validity, now)
    if audience_claim(claims) != source.trust_domain:
        raise Denied(Reason.WRONG_AUDIENCE, "aud is another trust domain")
    if not claims.keys() >= set(_REQUIRED):
        raise Denied(Reason.MALFORMED_TOKEN, "a required claim is missing")
    txn, subject, _ = (name_claim(claims, claim) or "" for claim in ("txn", "sub", "req_wl"))
    try:
        parse_scope_claim(claims["scope"], shape="string")
    except ScopeError as error:
        raise Denied(Reason.MALFORMED_TOKEN, str(error)) from error
    return TxnToken(
        raw=bearer.raw,
        txn=txn,
        subject_issuer=source.subject_issuer,
        subject=subject,
        expires_at=validity.expires_at,
        not_before=validity.not_before,
    )
