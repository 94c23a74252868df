"""Verification of an exchange's two tokens: the actor token and the subject token."""

from __future__ import annotations

from collections.abc import Mapping

from delegation_core.bearer import Bearer, parse_jwt_svid
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import JwtSvid, svid_subject, verify_jwt_svid
from delegation_core.keyset import KeySet, VerificationKey
from delegation_core.profile import TrustedIssuer
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.verify import ANY_CERTIFICATE, VerifiedToken, check_header, verify_token
from sidecar.sts.authority import foreign_issuer_for, login_issuer_for
from sidecar.sts.policy import StsPolicy


def verify_actor(
    raw: str, *, client: SpiffeId, bundles: Mapping[TrustDomain, KeySet], audience: str, now: int
) -> JwtSvid:
    """Verify an actor token: the client's own JWT-SVID, for ``audience`` alone, by a key of its trust domain.

    Raises:
        Denied: ACTOR_TOKEN_INVALID, with the error as its detail; ACTOR_NOT_CLIENT, the token is another
            workload's: a bearer string proves nothing without its owner's connection.
    """
    try:
        actor = _verify(raw, bundles, audience, now)
    except Denied as error:
        raise Denied(Reason.ACTOR_TOKEN_INVALID, str(error)) from error
    if actor.spiffe_id != client:
        raise Denied(Reason.ACTOR_NOT_CLIENT, "the actor token names another workload")
    return actor


def key_of_actor(actor: SpiffeId, kid: str | None, bundles: Mapping[TrustDomain, KeySet]) -> VerificationKey | None:
    """Return the key with this kid in the bundle of the actor's trust domain."""
    bundle = bundles.get(actor.trust_domain)
    return None if bundle is None else bundle.find(kid)


def _verify(raw: str, bundles: Mapping[TrustDomain, KeySet], audience: str, now: int) -> JwtSvid:
    bearer = parse_jwt_svid(raw)
    key = key_of_actor(svid_subject(bearer), bearer.kid, bundles)
    if key is None:
        raise Denied(Reason.UNKNOWN_KEY, "no such key in the bundle of the actor's trust domain")
    return verify_jwt_svid(bearer, key=key, audience=audience, now=now)


def check_subject(bearer: Bearer, *, client: SpiffeId, policy: StsPolicy) -> None:
    """Run the checks on a subject token that need no key, so that an untrusted token causes no fetch.

    Raises:
        Denied: NOT_AN_ENTRY, NOT_YOUR_TOKEN, DELEGATION_NOT_ALLOWED, MALFORMED_TOKEN, TOKEN_TYPE, ALG_NOT_ALLOWED.
    """
    trusted, _ = _expect(bearer, client, policy)
    check_header(bearer, trusted)


def verify_subject(
    bearer: Bearer, *, client: SpiffeId, key: VerificationKey, policy: StsPolicy, now: int
) -> VerifiedToken:
    """Verify a subject token with the audiences the client owns.

    Raises:
        Denied: NOT_YOUR_TOKEN, the token is for another audience; as ``check_subject`` and ``verify_token``.
    """
    trusted, audiences = _expect(bearer, client, policy)
    # A delegated token is bound to who sent it to the client, and the client has compared the two. A login is not.
    sender = None if bearer.issuer in policy.login_issuers else ANY_CERTIFICATE
    try:
        return verify_token(
            bearer, issuer=trusted, key=key, audiences=audiences, now=now, peer_certificate_sha256=sender
        )
    except Denied as error:
        if error.reason is Reason.WRONG_AUDIENCE:
            raise Denied(Reason.NOT_YOUR_TOKEN, error.detail) from error
        raise


def _expect(bearer: Bearer, client: SpiffeId, policy: StsPolicy) -> tuple[TrustedIssuer, frozenset[str]]:
    if bearer.issuer == policy.issuer:
        return policy.own, policy.audiences_of(client)
    if bearer.issuer in policy.foreign_issuers:
        return foreign_issuer_for(client, bearer.issuer, policy).trusted, policy.audiences_of(client)
    login = login_issuer_for(client, bearer.issuer, policy, bearer.claims)
    return login.trusted, login.audiences
