"""Whether a permit would be given again: the decision of before, by what is in force now."""

from __future__ import annotations

from sidecar.delegation.bearer import parse_bearer
from sidecar.delegation.decide import (
    Delegation,
    IssuedPermit,
    Permit,
    accept_issued,
    decide_entry,
    decide_inbound,
    plan_outbound,
)
from sidecar.delegation.keyset import VerificationKey
from sidecar.errors import Denied, Reason
from sidecar.proxy.snapshot import Snapshot


def stands(
    permit: Permit | IssuedPermit,
    snapshot: Snapshot,
    *,
    method: str,
    path: str,
    now: int,
    peer_certificate_sha256: str | None,
) -> None:
    """Return if the call would be permitted now as well; its token is verified anew, by the keys of now.

    Raises:
        SidecarError: as the journeys'. TARGET_DENIED too where an outbound route now leads elsewhere, POLICY_DENIED
            where it allows less than the call's token does.
    """
    policy = snapshot.policy
    bearer = parse_bearer(permit.token.raw)
    key = _key(snapshot, bearer.issuer, bearer.kid)
    if isinstance(permit, Permit):
        decide_inbound(
            bearer,
            peer=permit.peer,
            route=policy.inbound.find(method, path),
            key=key,
            policy=policy,
            now=now,
            peer_certificate_sha256=peer_certificate_sha256,
        )
        return
    before = permit.plan.route
    for route in policy.outbound.routes:
        if (route.name, route.upstream, route.peer, route.audience) == (
            before.name, before.upstream, before.peer, before.audience
        ):  # fmt: skip
            plan = plan_outbound(_delegation(permit.plan.delegation, snapshot, now), route, policy=policy, now=now)
            policy.deny.check(permit.token, policy.workload)
            if not permit.token.scope <= plan.scope:  # no fault of the token service, which was asked for more before
                raise Denied(Reason.POLICY_DENIED, "the route allows less now than its token")
            accept_issued(bearer, plan=plan, key=key, policy=policy, now=now)
            return
    raise Denied(Reason.TARGET_DENIED, "the route leads elsewhere now, or is gone")


def _delegation(before: Delegation, snapshot: Snapshot, now: int) -> Delegation:
    """The authority a call is made on: a request's own is what it was, a user's login is judged anew."""
    if not before.entry:
        return before
    login = parse_bearer(before.token.raw)
    key = _key(snapshot, login.issuer, login.kid)
    return before.narrowed_to(decide_entry(login, key=key, policy=snapshot.policy, now=now))


def _key(snapshot: Snapshot, issuer: str, kid: str | None) -> VerificationKey:
    key = snapshot.keys.find(issuer, kid)
    if key is None:
        raise Denied(Reason.UNKNOWN_KEY, "the token's key is gone")
    return key
