"""Authorization decisions: may this peer, acting for this subject, make this call, and which calls may follow?

Theory of operation. A token passes three stages: parsed (bearer.py, shape), verified (verify.py, signature and claims),
decided (here, policy). The order of checks is fixed and the first failure wins, so a token always has one reason:
issuer known and accepted on the route -> signature, times, audience, claims -> deny list -> act -> act is the peer
-> the issuer may speak for this actor -> scope within the issuer's ceiling -> peer allowed -> scopes sufficient
-> the user's login is recent and strong enough.
``decide_verified`` repeats every check except the signature and claims, so a verdict cached by token and peer never
answers for another route, time or policy. A cached permit is reused (``check_again``) only for the same call, and only
after its times are checked again.

A decision that allows a call returns its permit (permit.py). Only this module can make one: no permit, no bytes
upstream.

Only top-level claims and the outermost actor are read (RFC 8693 section 4.1). Earlier actors are evidence.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from delegation_core.act import Actor
from delegation_core.bearer import Bearer
from delegation_core.claims import audience_values
from delegation_core.errors import ActorUnauthorized, Denied, Reason
from delegation_core.issued import prove_issued, sts_error
from delegation_core.keyset import VerificationKey
from delegation_core.permit import _SEAL, IssuedPermit, Mode, ObservedPermit, OwnPermit, Permit, TunnelPermit
from delegation_core.plan import Delegation, Plan, opened_routes, use_of
from delegation_core.policy import Entry, Policy
from delegation_core.revocation import NO_NAMES, Use
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import (
    TrustedIssuer,
    VerifiedToken,
    check_binding,
    check_header,
    check_times,
    verify_token,
)

if TYPE_CHECKING:
    from delegation_core.connect import ConnectRoute
    from delegation_core.login_issuer import UserIssuer
    from delegation_core.outside import OutsideRoute

OWN_CALL_S: Final = 300  # life of a permit that no token's expiry bounds


def trusted_issuer(bearer: Bearer, *, route: InboundRoute, policy: Policy) -> TrustedIssuer:
    """Return the issuer whose keys may be fetched to verify ``bearer``. A refused token causes no fetch.

    Raises:
        Denied: WRONG_ISSUER, ISSUER_NOT_FOR_ROUTE, ALG_NOT_ALLOWED, TOKEN_TYPE.
    """
    issuer = _issuer_of(bearer.issuer, route, policy)
    check_header(bearer, issuer)
    return issuer


def decide_inbound(
    bearer: Bearer,
    *,
    peer: SpiffeId,
    route: InboundRoute,
    key: VerificationKey,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str | None = None,
) -> Permit:
    """Decide a request of a peer authenticated by mTLS. ``key``: the issuer's key with the token's kid.

    ``peer_certificate_sha256`` (hexadecimal): the certificate that a bound token must name; None: refuse bound tokens.

    Raises:
        Denied: any 401 or 403 code of the inbound side. Unavailable: REVOCATIONS_STALE.
    """
    issuer = trusted_issuer(bearer, route=route, policy=policy)
    token = verify_token(
        bearer,
        issuer=issuer,
        key=key,
        audiences=policy.audiences,
        now=now,
        peer_certificate_sha256=peer_certificate_sha256,
        slim=True,
    )
    return decide_verified(
        token, peer=peer, route=route, policy=policy, now=now, peer_certificate_sha256=peer_certificate_sha256
    )


def decide_verified(
    token: VerifiedToken,
    *,
    peer: SpiffeId,
    route: InboundRoute,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str | None = None,
) -> Permit:
    """Decide a request whose token was verified, now or for an earlier request. Takes about 2 microseconds.

    The issuer's profile is not applied again, so ``token`` must have been verified by the current profile and key.

    Raises:
        Denied: WRONG_ISSUER, ISSUER_NOT_FOR_ROUTE, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, WRONG_AUDIENCE, CNF_MISMATCH,
            ACT_MISSING, ACTOR_MISMATCH, SCOPE_ABOVE_CEILING, INSUFFICIENT_SCOPE, STEP_UP_REQUIRED, REVOKED, or
            POLICY_DENIED (deny list, the peer's trust domain, a peer or subject that the route does not list).
    """
    issuer = _issuer_of(token.issuer, route, policy)
    check_times(token, now)
    if token.audience not in policy.audiences:
        raise Denied(Reason.WRONG_AUDIENCE)
    policy.deny.check(Use(token, peer, NO_NAMES))
    check_binding(token, peer_certificate_sha256)
    mode = _mode_of(token, peer, route, issuer)
    _require_domain(peer, issuer)
    if not token.scope <= issuer.scopes:
        raise Denied(Reason.SCOPE_ABOVE_CEILING)
    if peer not in route.peers:
        raise _refused_actor(issuer, Reason.POLICY_DENIED, "the peer is not listed in the route's peers")
    if route.subjects and token.subject not in route.subjects:
        raise Denied(Reason.POLICY_DENIED, "the subject is not listed for this operation")
    if not route.scopes <= token.scope:
        raise Denied(Reason.INSUFFICIENT_SCOPE)
    if route.human is not None:
        route.human.check(token, now)
    return Permit(_SEAL, token, peer, route, mode)


def decide_observed(
    denied: Denied,
    *,
    token: VerifiedToken | None,
    peer: SpiffeId | None,
    route: InboundRoute,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str | None = None,
) -> ObservedPermit:
    """Decide a request that ``denied`` refuses, on a route that observes: permit it if only relaxed checks fail.

    ``token``: the result of ``observed_bearer``, verified with ``ANY_AUDIENCE``. The deny list and revocations are
    never relaxed, since operators rely on them in an incident.

    Raises:
        Denied: ``denied``, if the route no longer observes, the reason is not in ``RELAXED``, or it needs a token and
            there is none; else the reason of a check that is never relaxed (see ``_check_unrelaxed``).
    """
    from delegation_core.observed import RELAXED, WITHOUT_TOKEN  # of routes that observe

    if now >= route.observe_until or denied.reason not in RELAXED:
        raise denied
    if token is None:
        if denied.reason not in WITHOUT_TOKEN:
            raise denied
        policy.deny.check(policy.own_use(peer))
        return ObservedPermit(_SEAL, route, denied.reason, peer=peer, token=None, ends_at=route.observe_until)
    _check_unrelaxed(token, peer, route, policy, now=now, peer_certificate_sha256=peer_certificate_sha256)
    ends_at = min(route.observe_until, token.expires_at)
    return ObservedPermit(_SEAL, route, denied.reason, peer=peer, token=token, ends_at=ends_at)


def decide_plain(
    token: VerifiedToken | None, *, route: InboundRoute, policy: Policy, now: int, until: int
) -> ObservedPermit:
    """Decide a request without TLS on a route that observes, before ``until``. The caller proved no identity.

    ``token``: as in ``decide_observed``. A token that names an actor is refused: its workload has a sidecar and would
    call by mTLS, so the token was stolen or forwarded.

    Raises:
        Denied: POLICY_DENIED if the route no longer observes, or ``until`` has passed; ACTOR_MISMATCH; or the reason of
            a check that is never relaxed (see ``_check_unrelaxed``).
    """
    ends_at = min(route.observe_until, until)
    if now >= ends_at:
        raise Denied(Reason.POLICY_DENIED, "a request without TLS is accepted only while its route observes")
    if token is None:
        policy.deny.check(policy.own_use(None))
    elif token.chain is not None:
        raise Denied(Reason.ACTOR_MISMATCH, "the token names an actor, so it needs mTLS")
    else:
        _check_unrelaxed(token, None, route, policy, now=now, peer_certificate_sha256=None)
        ends_at = min(ends_at, token.expires_at)
    return ObservedPermit(_SEAL, route, Reason.NO_CLIENT_CERT, peer=None, token=token, ends_at=ends_at)


def decide_observed_call(
    denied: Denied, *, issuers: Collection[str], route: OutboundRoute | OutsideRoute, policy: Policy, now: int
) -> ObservedPermit:
    """Decide an agent's call without a handle, which ``denied`` refuses, on a route that observes.

    The call goes out with the agent's own credential. ``issuers``: those of all tokens in the call. A token of an
    issuer that the policy knows is refused, since it may leave only by an exchange.

    Raises:
        Denied: ``denied``, if the route no longer observes, the reason is not in ``RELAXED_CALLS``, or an issuer is
            known; POLICY_DENIED or REVOKED (this workload).
    """
    from delegation_core.observed import RELAXED_CALLS

    if now >= route.observe_until or denied.reason not in RELAXED_CALLS or any(map(policy.knows_issuer, issuers)):
        raise denied
    policy.deny.check(policy.own_use(policy.workload))
    return ObservedPermit(_SEAL, route, denied.reason, peer=None, token=None, ends_at=route.observe_until)


def check_again(permit: Permit, now: int) -> None:
    """Check that an earlier permit still holds at ``now``.

    Valid only for the same peer, certificate, token, route, policy and keys: of the inputs of ``decide_verified`` only
    the time may differ.

    Raises:
        Denied: TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, STEP_UP_REQUIRED.
    """
    check_times(permit.token, now)
    if permit.route.human is not None:
        permit.route.human.check(permit.token, now)


def delegate(permit: Permit) -> Delegation:
    """Return the delegation for the handle of a permitted request.

    A workload that acts for itself may make no further calls, unless the route has ``delegate_self``.
    """
    token, route = permit.token, permit.route
    return Delegation(
        token=token,
        may_call=route.may_call if permit.mode == "delegated" or route.delegate_self else frozenset(),
        entry=False,
        scope=token.scope,
        came_by=route.mark,
        fresh_until=permit.fresh_until,
    )


def user_issuer(bearer: Bearer, *, policy: Policy, at_door: bool = False) -> UserIssuer:
    """Return the user issuer of a login token, whose keys may be fetched. ``at_door``: the door received the token.

    Raises:
        Denied: NOT_AN_ENTRY (this workload takes no login tokens), WRONG_ISSUER, ALG_NOT_ALLOWED, TOKEN_TYPE.
    """
    user = _entry_of(policy).users(at_door=at_door).get(bearer.issuer)
    if user is None:
        raise Denied(Reason.WRONG_ISSUER, "the issuer is not a user issuer of this entry")
    check_header(bearer, user.trusted)
    return user


def decide_entry(
    bearer: Bearer, *, key: VerificationKey, policy: Policy, now: int, at_door: bool = False
) -> Delegation:
    """Decide a login token at an entry, where a chain may start; ``at_door``: the door received the token.

    Raises:
        Denied: NOT_AN_ENTRY, WRONG_ISSUER, WRONG_AUDIENCE (issued to another client; not for the door; or for the door
            but received elsewhere), TOKEN_TYPE (the token names an actor), POLICY_DENIED (deny list), REVOKED, or any
            other 401 code.
    """
    user, entry = user_issuer(bearer, policy=policy, at_door=at_door), _entry_of(policy)
    token = verify_token(
        bearer, issuer=user.trusted, key=key, audiences=user.audiences, now=now, trusted=user, slim=True
    )
    if not user.issued_for_us(token, bearer.claims):
        raise Denied(Reason.WRONG_AUDIENCE, "the login token was issued to another client, or names several")
    if not at_door and entry.door is not None and entry.door.is_meant_by(audience_values(bearer.claims)):
        raise Denied(Reason.WRONG_AUDIENCE, "the login token is valid only at the door")
    policy.deny.check(Use(token, policy.workload, policy.names_of_login(user, token.subject)))
    if token.chain is not None:
        raise Denied(Reason.TOKEN_TYPE, "the login token names an actor")
    scope = user.scope_from.worth(bearer.claims)
    may_call = entry.may_call if not at_door or entry.door is None else entry.may_call & entry.door.routes
    return Delegation(token=token, may_call=may_call, entry=True, scope=scope, at_door=at_door)


def accept_issued(
    issued: Bearer,
    *,
    plan: Plan,
    key: VerificationKey,
    policy: Policy,
    now: int,
    own_certificate_sha256: str | None = None,
) -> IssuedPermit:
    """Verify a token issued by the STS for ``plan``. ``key``: the key of ``plan.sts_issuer`` with the token's kid.

    A certificate-bound token must be bound to ours, ``own_certificate_sha256`` (hexadecimal).

    Raises:
        Denied: an ``sts_*`` code for a defect; POLICY_DENIED or REVOKED. Unavailable: REVOCATIONS_STALE.
    """
    if plan.sts_issuer not in policy.token_services:
        raise Denied(Reason.STS_ISSUER, "the policy no longer has this token service")
    try:
        token = verify_token(
            issued,
            issuer=policy.issuers[plan.sts_issuer],
            key=key,
            audiences=frozenset({plan.audience}),
            now=now,
            peer_certificate_sha256=own_certificate_sha256,
            slim=plan.delegation is not None,  # an own token keeps all claims: prove_issued refuses some
        )
    except Denied as error:
        raise sts_error(error, issued.claims) from error
    prove_issued(token, plan, now=now)
    policy.deny.check(Use(token, policy.workload, NO_NAMES))
    return IssuedPermit(_SEAL, token, plan)


def decide_own(
    delegation: Delegation | None, route: OutsideRoute, *, method: str, path: str, policy: Policy, now: int
) -> OwnPermit:
    """Decide an agent's call to a host outside the mesh. ``path``: canonical. ``delegation``: from the call's handle.

    ``delegation`` None: the agent used the workload handle, which permits the routes in ``policy.own_may_call``.

    Raises:
        Denied: CALL_NOT_ALLOWED, TARGET_DENIED, METHOD_REFUSED, TOKEN_EXPIRED, NOT_AN_ENTRY, REVOKED, or POLICY_DENIED
            (deny list, or the route has expired).
        Unavailable: REVOCATIONS_STALE.
    """
    opened = policy.own_may_call if delegation is None else opened_routes(delegation, policy)
    if route.name not in opened:
        raise Denied(Reason.CALL_NOT_ALLOWED)
    route.check(method, path)
    expires_at = now + OWN_CALL_S if delegation is None else delegation.ends_at
    until = None if route.key is None else route.key.until
    ends_at = expires_at if until is None else min(expires_at, until)
    if until is not None and now >= until:
        raise Denied(Reason.POLICY_DENIED, "the route has expired")
    if now >= expires_at:
        raise Denied(Reason.TOKEN_EXPIRED)
    if delegation is None:
        policy.deny.check(policy.own_use(policy.workload))
    else:
        policy.deny.check(use_of(delegation, policy))
    return OwnPermit(_SEAL, delegation, route, method=method, path=path, ends_at=ends_at)


def decide_connect(
    delegation: Delegation | None, route: ConnectRoute, *, own: bool = False, policy: Policy, now: int
) -> TunnelPermit:
    """Decide an agent's CONNECT to a listed host and port.

    ``delegation``: from the call's handle; None: the agent used the workload handle (``own``), or none.

    Raises:
        Denied: CALL_NOT_ALLOWED, TOKEN_EXPIRED, NOT_AN_ENTRY, NO_REQUEST_CONTEXT (no handle, where the route needs
            one), REVOKED, or POLICY_DENIED (deny list).
        Unavailable: REVOCATIONS_STALE.
    """
    if delegation is None:
        if own and route.name not in policy.own_may_call:
            raise Denied(Reason.CALL_NOT_ALLOWED)
        if not (own or route.without_handle):
            raise Denied(Reason.NO_REQUEST_CONTEXT, "no handle in Proxy-Authorization")
        policy.deny.check(policy.own_use(policy.workload))
        return TunnelPermit(_SEAL, None, route, own=own)
    if route.name not in opened_routes(delegation, policy):
        raise Denied(Reason.CALL_NOT_ALLOWED)
    if now >= delegation.token.expires_at:
        raise Denied(Reason.TOKEN_EXPIRED)
    policy.deny.check(use_of(delegation, policy))
    return TunnelPermit(_SEAL, delegation, route)


def _check_unrelaxed(
    token: VerifiedToken,
    peer: SpiffeId | None,
    route: InboundRoute,
    policy: Policy,
    *,
    now: int,
    peer_certificate_sha256: str | None,
) -> None:
    """Check issuer, times, deny list, certificate binding, scope ceiling and login. Raises Denied, Unavailable."""
    issuer = _issuer_of(token.issuer, route, policy)
    check_times(token, now)
    policy.deny.check(Use(token, peer, NO_NAMES))
    check_binding(token, peer_certificate_sha256)
    if not token.scope <= issuer.scopes:
        raise Denied(Reason.SCOPE_ABOVE_CEILING)
    if route.human is not None:
        route.human.check(token, now)


def _entry_of(policy: Policy) -> Entry:
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    return policy.entry


def _issuer_of(name: str, route: InboundRoute, policy: Policy) -> TrustedIssuer:
    issuer = policy.issuers.get(name)
    if issuer is None:
        raise Denied(Reason.WRONG_ISSUER)
    if name not in route.issuers:
        raise Denied(Reason.ISSUER_NOT_FOR_ROUTE)
    return issuer


def _mode_of(token: VerifiedToken, peer: SpiffeId, route: InboundRoute, issuer: TrustedIssuer) -> Mode:
    """Return how ``peer`` holds the token: as its current actor, or as an agent that acts for itself. Raises Denied."""
    if token.chain is None:
        if token.subject != peer or not route.allow_self:
            raise Denied(Reason.ACT_MISSING)
        return "self"
    if token.actor_id is None:  # no mapping, perhaps because the issuer may not speak for such actors
        _require_domain(peer, issuer)
    if token.actor_id != peer:
        raise _refused_actor(issuer, Reason.ACTOR_MISMATCH)
    if not _acts_for_itself(token, token.chain.current):
        return "delegated"
    if not route.allow_self:
        raise Denied(Reason.ACT_MISSING, "subject and actor are the same: no delegation")
    return "self"


def _require_domain(peer: SpiffeId, issuer: TrustedIssuer) -> None:
    if peer.trust_domain not in issuer.actor_trust_domains:
        raise _refused_actor(issuer, Reason.POLICY_DENIED, "the issuer may not speak for actors of this trust domain")


def _refused_actor(issuer: TrustedIssuer, reason: Reason, detail: str = "") -> Denied:
    """Return the refusal of an actor, of the class that the issuer's profile requires for its error code."""
    return (ActorUnauthorized if issuer.profile.follows_actor_profile else Denied)(reason, detail)


def _acts_for_itself(token: VerifiedToken, actor: Actor) -> bool:
    """True if subject and current actor are the same, by SPIFFE ID or by the name the token's issuer uses for them."""
    if token.subject == token.actor_id:
        return True
    return actor.subject == token.subject and actor.issuer in (None, token.issuer)
