from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from sidecar.delegation.decide import IssuedPermit, Permit, accept_issued, decide_entry, decide_inbound
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.policy import Deny, Policy, ScopeFrom
from sidecar.delegation.route import InboundRoutes, OutboundRoutes, Upstream
from sidecar.errors import Denied, Reason
from sidecar.proxy.snapshot import Snapshot
from sidecar.proxy.standing import stands
from tests.delegation.world import (
    CRM,
    ENTRY,
    ENTRY_CLAIMS,
    FRONT,
    IDP,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    TO_CRM,
    USERS,
    delegation,
    plan,
    signed,
    verification_key,
)

KEY = verification_key()


class Keys:
    """Issuers' keys that the test says."""

    def __init__(self, key: VerificationKey | None, login_key: VerificationKey | None) -> None:
        self._keys = {(STS, "k1"): key, (IDP, "k1"): login_key}

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return self._keys.get((issuer, kid or ""))


def snapshot(
    policy: Policy = POLICY, key: VerificationKey | None = KEY, login_key: VerificationKey | None = KEY
) -> Snapshot:
    return Snapshot(policy=policy, keys=cast("Any", Keys(key, login_key)), exchange=None, agent=None)


def inbound() -> Permit:
    return decide_inbound(signed(INBOUND_CLAIMS), peer=PLANNER, route=SEARCH, key=KEY, policy=POLICY, now=NOW)


def outbound(scope: str = "crm.read", **changes: Any) -> IssuedPermit:
    planned = plan(delegation(INBOUND_CLAIMS | {"scope": "docs.read crm.read crm.write"}, **changes))
    return accept_issued(signed(ISSUED_CLAIMS | {"scope": scope}), plan=planned, key=KEY, policy=POLICY, now=NOW)


def at_entry() -> IssuedPermit:
    login = decide_entry(signed(LOGIN_CLAIMS, typ="jwt"), key=KEY, policy=POLICY, now=NOW)
    return accept_issued(signed(ENTRY_CLAIMS), plan=plan(login), key=KEY, policy=POLICY, now=NOW)


def users(**changes: Any) -> Policy:
    return replace(POLICY, entry=replace(ENTRY, issuers={IDP: replace(USERS, **changes)}))


def judge(permit: Permit | IssuedPermit, now_in_force: Snapshot, *, now: int = NOW) -> None:
    stands(permit, now_in_force, method="POST", path="/search", now=now, peer_certificate_sha256=None)


def with_inbound(**changes: Any) -> Policy:
    return replace(POLICY, inbound=InboundRoutes([replace(SEARCH, **changes)]))


def with_outbound(**changes: Any) -> Policy:
    return replace(POLICY, outbound=OutboundRoutes([replace(TO_CRM, **changes)]))


@pytest.mark.parametrize("permitted", [inbound, outbound, at_entry])
def test_what_was_permitted_stands_while_nothing_has_changed(permitted: Any) -> None:
    permit = permitted()
    judge(permit, snapshot())
    judge(permit, snapshot(replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "mallory")})))))


CHANGES = {
    "in: route gone": (inbound, snapshot(with_inbound(path="/other")), Reason.NO_ROUTE),
    "in: method gone": (inbound, snapshot(with_inbound(methods=frozenset({"GET"}))), Reason.METHOD_REFUSED),
    "in: another peer": (inbound, snapshot(with_inbound(peers=frozenset({FRONT}))), Reason.POLICY_DENIED),
    "in: more scopes": (inbound, snapshot(with_inbound(scopes=frozenset({"docs.write"}))), Reason.INSUFFICIENT_SCOPE),
    "in: subject denied": (
        inbound,
        snapshot(replace(POLICY, deny=Deny(subjects=frozenset({(None, "alice")})))),
        Reason.POLICY_DENIED,
    ),
    "in: key gone": (inbound, snapshot(key=None), Reason.UNKNOWN_KEY),
    "in: another key of that name": (inbound, snapshot(key=verification_key("other")), Reason.BAD_SIGNATURE),
    "out: its request may call this no more": (
        lambda: outbound(came_by=SEARCH.mark),
        snapshot(with_inbound(may_call=frozenset())),
        Reason.CALL_NOT_ALLOWED,
    ),
    "out: route gone": (outbound, snapshot(with_outbound(name="other")), Reason.TARGET_DENIED),
    "out: route leads elsewhere": (
        outbound,
        snapshot(with_outbound(upstream=Upstream(scheme="https", host="evil.internal", port=7443))),
        Reason.TARGET_DENIED,
    ),
    "out: another peer pinned": (outbound, snapshot(with_outbound(peer=FRONT)), Reason.TARGET_DENIED),
    "out: another audience": (outbound, snapshot(with_outbound(audience=str(CRM) + "/x")), Reason.TARGET_DENIED),
    "out: nothing left to ask for": (
        outbound,
        snapshot(with_outbound(scopes=frozenset({"crm.admin"}))),
        Reason.INSUFFICIENT_SCOPE,
    ),
    "out: less to ask for than there was": (
        lambda: outbound(scope="crm.read crm.write"),
        snapshot(with_outbound(scopes=frozenset({"crm.read"}))),
        Reason.POLICY_DENIED,
    ),
    "out: the request's token denied": (
        outbound,
        snapshot(replace(POLICY, deny=Deny(jtis=frozenset({"token-2"})))),
        Reason.POLICY_DENIED,
    ),
    "out: the issued token denied": (
        outbound,
        snapshot(replace(POLICY, deny=Deny(jtis=frozenset({"token-3"})))),
        Reason.POLICY_DENIED,
    ),
    "out: key gone": (outbound, snapshot(key=None), Reason.UNKNOWN_KEY),
    "out, at an entry: the login's key gone": (at_entry, snapshot(login_key=None), Reason.UNKNOWN_KEY),
    "out, at an entry: the login is worth less": (
        at_entry,
        snapshot(users(scope_from=ScopeFrom(claim="groups", map={"staff": frozenset({"docs.read"})}))),
        Reason.INSUFFICIENT_SCOPE,
    ),
    "out: another key of that name": (outbound, snapshot(key=verification_key("other")), Reason.STS_SIGNATURE),
}


@pytest.mark.parametrize(("permitted", "in_force", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_what_would_not_be_permitted_now_does_not_stand(permitted: Any, in_force: Snapshot, reason: Reason) -> None:
    with pytest.raises(Denied) as refused:
        judge(permitted(), in_force)
    assert refused.value.reason is reason


@pytest.mark.parametrize("permitted", [inbound, outbound, at_entry])
def test_a_permit_does_not_stand_longer_than_its_token(permitted: Any) -> None:
    permit = permitted()
    with pytest.raises(Denied) as refused:
        judge(permit, snapshot(), now=NOW + 10_000)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
