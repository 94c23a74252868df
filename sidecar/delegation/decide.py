"""The decision: may this peer, acting for this subject, make this call? And which calls may follow from it?

Theory of operation. A token passes three stages: parsed (bearer.py, shape), verified (verify.py, signature and claims),
decided (here, policy). The order of checks is fixed and the first failure wins, so a token always has one reason:
issuer known and accepted on the route -> signature, times, audience, claims -> deny list -> act -> act is the peer
-> the issuer may speak for this actor -> scope within the issuer's ceiling -> peer allowed -> scopes sufficient
-> the user's login is recent and strong enough.
``decide_verified`` is everything that must be judged again although the signature was verified before: a verdict
cached by token and peer never answers for another route, another time or another policy. A cached permit is reused
(``check_again``) only for exactly the call it was given for, and only after its times are checked again.

A decision that allows a call returns its permit (permit.py). Only this module can make one: no permit, no bytes
upstream.

Only top-level claims and the outermost actor are read (RFC 8693 section 4.1). Earlier actors are evidence.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from sidecar.delegation.act import Actor
from sidecar.delegation.bearer import Bearer
from sidecar.delegation.claims import audience_values
from sidecar.delegation.issued import prove_issued, sts_error
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.permit import _SEAL, IssuedPermit, Mode, ObservedPermit, OwnPermit, Permit, TunnelPermit
from sidecar.delegation.plan import Delegation, Plan, opened_routes, use_of
from sidecar.delegation.policy import Entry, Policy
from sidecar.delegation.revocation import NO_NAMES, Use
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import (
    TrustedIssuer,
    VerifiedToken,
    check_binding,
    check_header,
    check_times,
    verify_token,
)
from sidecar.errors import ActorUnauthorized, Denied, Reason

if TYPE_CHECKING:
    from sidecar.delegation.connect import ConnectRoute
    from sidecar.delegation.login_issuer import UserIssuer
    from sidecar.delegation.outside import OutsideRoute

OWN_CALL_S: Final = 300  # the life of a permit without a token, whose life would bound it


def trusted_issuer(bearer: Bearer, *, route: InboundRoute, policy: Policy) -> TrustedIssuer:
    """Return the issuer whose keys may be fetched. An unknown issuer, or one of another kind, causes no fetch.

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
    """Judge one request of a peer with a proven mTLS identity. ``key`` is the issuer's key with the token's kid.

    A token may be bound to ``peer_certificate_sha256`` (hexadecimal); without it bound tokens are refused.

    Raises:
        Denied: any 401 or 403 code of the inbound side.
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
    """Judge a request whose token was verified before, now or for an earlier request. Takes about 2 microseconds.

    The issuer's profile is not applied again: a verdict belongs to one policy, one key, one token and one peer.

    Raises:
        Denied: WRONG_ISSUER, ISSUER_NOT_FOR_ROUTE, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, WRONG_AUDIENCE, CNF_MISMATCH,
            ACT_MISSING, ACTOR_MISMATCH, SCOPE_ABOVE_CEILING, INSUFFICIENT_SCOPE, STEP_UP_REQUIRED, or POLICY_DENIED
            (deny list, a trust domain the issuer may not speak for, a peer that is not on the route).
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
    """Judge a request that ``denied`` refuses on a route that only observes: it passes if nothing else is wrong.

    ``token`` is what ``observed_bearer`` found, verified with ``ANY_AUDIENCE``. The deny list is not relaxed: it is
    what an operator reaches for in an incident.

    Raises:
        Denied: ``denied``, if the route does not observe or never relaxes this; else any other reason of
            ``decide_verified`` that is not in ``RELAXED``, or POLICY_DENIED (deny list).
    """
    from sidecar.delegation.observed import RELAXED, WITHOUT_TOKEN  # of routes that observe

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
    """Judge a request without TLS, of a caller that proves no identity, where that is accepted before ``until``.

    ``token`` as of ``decide_observed``. One that names an actor belongs to a workload with a sidecar, which calls by
    mTLS: here it was stolen or passed on.

    Raises:
        Denied: POLICY_DENIED, the route does not observe, or not without TLS any more; ACTOR_MISMATCH; or as
            ``decide_observed``.
    """
    ends_at = min(route.observe_until, until)
    if now >= ends_at:
        raise Denied(Reason.POLICY_DENIED, "a request without TLS is only served by a route that observes")
    if token is None:
        policy.deny.check(policy.own_use(None))
    elif token.chain is not None:
        raise Denied(Reason.ACTOR_MISMATCH, "a delegated token without TLS")
    else:
        _check_unrelaxed(token, None, route, policy, now=now, peer_certificate_sha256=None)
        ends_at = min(ends_at, token.expires_at)
    return ObservedPermit(_SEAL, route, Reason.NO_CLIENT_CERT, peer=None, token=token, ends_at=ends_at)


def decide_observed_call(
    denied: Denied, *, issuers: Collection[str], route: OutboundRoute | OutsideRoute, policy: Policy, now: int
) -> ObservedPermit:
    """Judge a call of the agent without a handle, refused by ``denied``, on a route that only observes.

    It goes to the next hop with whatever it shows. ``issuers`` are those of all tokens in it: none may be ours, or one
    where users of ours log in, since such a token never leaves but by an exchange.

    Raises:
        Denied: ``denied``, if the route does not observe, never relaxes this, or a token is ours; POLICY_DENIED or
            REVOKED (this workload).
    """
    from sidecar.delegation.observed import RELAXED_CALLS

    if now >= route.observe_until or denied.reason not in RELAXED_CALLS or any(map(policy.knows_issuer, issuers)):
        raise denied
    policy.deny.check(policy.own_use(policy.workload))
    return ObservedPermit(_SEAL, route, denied.reason, peer=None, token=None, ends_at=route.observe_until)


def check_again(permit: Permit, now: int) -> None:
    """Check that an earlier permit still holds at ``now``.

    Only for a call of the same peer (by the same certificate) with the same token on the same route under the same
    policy and keys: of all that ``decide_verified`` reads, only the time differs.

    Raises:
        Denied: TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, STEP_UP_REQUIRED.
    """
    check_times(permit.token, now)
    if permit.route.human is not None:
        permit.route.human.check(permit.token, now)


def delegate(permit: Permit) -> Delegation:
    """Return the delegation that the handle of a permitted request refers to.

    A workload that acts for itself opens nothing further, unless the route says so.
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
    """Return the user issuer of a login token, whose keys may be fetched. ``at_door``: the token is shown at the door.

    Raises:
        Denied: NOT_AN_ENTRY (this workload takes no login tokens), WRONG_ISSUER, ALG_NOT_ALLOWED, TOKEN_TYPE.
    """
    user = _entry_of(policy).users(at_door=at_door).get(bearer.issuer)
    if user is None:
        raise Denied(Reason.WRONG_ISSUER, "not a user issuer of this entry")
    check_header(bearer, user.trusted)
    return user


def decide_entry(
    bearer: Bearer, *, key: VerificationKey, policy: Policy, now: int, at_door: bool = False
) -> Delegation:
    """Judge a login token at an entry, where a chain may start; ``at_door``: at its door, for people's own clients.

    Raises:
        Denied: NOT_AN_ENTRY, WRONG_ISSUER, WRONG_AUDIENCE (another client's token, or for something else than the
            door, or for the door and shown elsewhere), TOKEN_TYPE (it names an actor: a login has none), POLICY_DENIED
            (deny list) or any other 401 code.
    """
    user, entry = user_issuer(bearer, policy=policy, at_door=at_door), _entry_of(policy)
    token = verify_token(
        bearer, issuer=user.trusted, key=key, audiences=user.audiences, now=now, trusted=user, slim=True
    )
    if not user.issued_for_us(token, bearer.claims):
        raise Denied(Reason.WRONG_AUDIENCE, "the login token was issued to another client, or names several")
    if not at_door and entry.door is not None and entry.door.is_meant_by(audience_values(bearer.claims)):
        raise Denied(Reason.WRONG_AUDIENCE, "the login token is for the door, and opens nothing else")
    policy.deny.check(Use(token, policy.workload, policy.names_of_login(user, token.subject)))
    if token.chain is not None:
        raise Denied(Reason.TOKEN_TYPE, "a login token names no actor")
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
    """Verify the token that the STS sent back before it is used. ``key`` is one of ``plan.sts_issuer``'s.

    A token that is bound to a certificate must be bound to ours, ``own_certificate_sha256`` (hexadecimal).

    Raises:
        Denied: an ``sts_*`` code for each defect.
    """
    if plan.sts_issuer not in policy.token_services:
        raise Denied(Reason.STS_ISSUER, "the policy no longer names this STS")
    try:
        token = verify_token(
            issued,
            issuer=policy.issuers[plan.sts_issuer],
            key=key,
            audiences=frozenset({plan.audience}),
            now=now,
            peer_certificate_sha256=own_certificate_sha256,
            slim=plan.delegation is not None,  # claims that a token of the workload's own must not have are looked for
        )
    except Denied as error:
        raise sts_error(error, issued.claims) from error
    prove_issued(token, plan, now=now)
    policy.deny.check(Use(token, policy.workload, NO_NAMES))
    return IssuedPermit(_SEAL, token, plan)


def decide_own(
    delegation: Delegation | None, route: OutsideRoute, *, method: str, path: str, policy: Policy, now: int
) -> OwnPermit:
    """Judge a call of the agent to a host outside the mesh. ``path`` is canonical; ``delegation`` is of its handle.

    ``delegation`` None: the agent shows the workload handle, which opens ``policy.own_may_call``.

    Raises:
        Denied: CALL_NOT_ALLOWED, TARGET_DENIED, METHOD_REFUSED, TOKEN_EXPIRED, NOT_AN_ENTRY, REVOKED, or POLICY_DENIED
            (deny list, or the route's end has come).
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
        raise Denied(Reason.POLICY_DENIED, "the route's end has come")
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
    """Judge a CONNECT of the agent to a listed host and port.

    ``delegation`` is of its handle; None: it shows the workload handle (``own``), or no handle at all.

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
    """Check the rules that no route relaxes. Raises Denied or Unavailable."""
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
    """Tell how the token is tied to this peer: as its current actor, or as an agent that acts for itself."""
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
    """Return the refusal of an actor that may not act here, with the error code of the issuer's profile."""
    return (ActorUnauthorized if issuer.profile.follows_actor_profile else Denied)(reason, detail)


def _acts_for_itself(token: VerifiedToken, actor: Actor) -> bool:
    """True if subject and current actor are the same, by SPIFFE ID or by the name the token's issuer uses for them."""
    if token.subject == token.actor_id:
        return True
    return actor.subject == token.subject and actor.issuer in (None, token.issuer)
