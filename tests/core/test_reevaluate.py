from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from delegation_core import verify
from delegation_core.crossing import Crossing
from delegation_core.decide import accept_issued, decide_entry, decide_inbound, delegate
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.keyset import VerificationKey
from delegation_core.login_issuer import ScopeFrom
from delegation_core.operation import Operations
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.plan import plan_outbound, plan_own
from delegation_core.policy import Deny, Policy
from delegation_core.reevaluate import inbound_again, outbound_again
from delegation_core.route import Upstream
from tests.core.world import (
    CRM,
    ENTRY,
    ENTRY_CLAIMS,
    FRONT,
    IDP,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    OWN_CLAIMS,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    TO_CRM,
    USERS,
    WRITER,
    delegation,
    plan,
    reason_of,
    signed,
    verification_key,
)

KEY = verification_key()


class Keys:
    """Issuers' keys, set by the test."""

    def __init__(
        self,
        key: VerificationKey | None = KEY,
        login_key: VerificationKey | None = KEY,
        *,
        stale: frozenset[str] = frozenset(),
    ) -> None:
        self._keys = {(STS, "k1"): key, (IDP, "k1"): login_key}
        self._stale = stale

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        return None if issuer in self._stale else self._keys.get((issuer, kid or ""))

    def known(self, issuer: str) -> bool:
        return issuer not in self._stale


InForce = tuple[Policy, Keys]


def in_force(policy: Policy = POLICY, **keys: Any) -> InForce:
    return policy, Keys(**keys)


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


def judge(permit: Permit | IssuedPermit, by: InForce, *, now: int = NOW) -> None:
    policy, keys = by
    if isinstance(permit, IssuedPermit):
        outbound_again(permit, keys=keys, policy=policy, now=now)
        return
    inbound_again(
        permit.token,
        peer=PLANNER,
        route=policy.inbound.find("POST", "/search"),
        keys=keys,
        policy=policy,
        now=now,
        peer_certificate_sha256="00" * 32,
    )


def with_inbound(**changes: Any) -> Policy:
    return replace(POLICY, inbound=InboundRoutes([replace(SEARCH, **changes)]))


def with_issuers() -> Policy:
    other = replace(POLICY.issuers[STS], issuer="https://other.example")
    return replace(POLICY, issuers={other.issuer: other}, token_services=frozenset({other.issuer}))


def with_outbound(**changes: Any) -> Policy:
    return replace(POLICY, outbound=OutboundRoutes([replace(TO_CRM, **changes)]))


PARTNERS = "https://sts.partner.example"
CROSSING = Crossing(issuer=PARTNERS, subject_prefix="partner:", scopes={"docs.read": frozenset({"crm.read"})})


def crossed() -> IssuedPermit:
    route = replace(TO_CRM, crossings={PARTNERS: CROSSING})
    planned = plan_outbound(delegation(INBOUND_CLAIMS | {"iss": PARTNERS}), route, policy=POLICY, now=NOW)
    return accept_issued(
        signed(ISSUED_CLAIMS | {"sub": "partner:alice"}), plan=planned, key=KEY, policy=POLICY, now=NOW
    )


def with_crossing(**changes: Any) -> InForce:
    return in_force(with_outbound(crossings={PARTNERS: replace(CROSSING, **changes)}))


def test_a_crossed_call_stands_while_the_crossing_is_listed_as_it_was() -> None:
    assert reason_of(judge, crossed(), with_crossing()) is None
    wider = with_crossing(scopes={"docs.read": frozenset({"crm.read", "crm.write"})})
    assert reason_of(judge, crossed(), wider) is None


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        pytest.param(in_force(), Reason.ISSUER_NOT_FOR_ROUTE, id="no longer listed"),
        pytest.param(with_crossing(subject_prefix="p:"), Reason.STS_SUBJECT_MISMATCH, id="another prefix"),
        pytest.param(
            with_crossing(scopes={"docs.read": frozenset({"crm.write"})}),
            Reason.POLICY_DENIED,
            id="worth another scope",
        ),
        pytest.param(with_crossing(scopes={}), Reason.INSUFFICIENT_SCOPE, id="worth nothing"),
    ],
)
def test_a_crossed_call_ends_when_its_crossing_changes(by: InForce, reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        judge(crossed(), by)
    assert refusal.value.reason is reason


@pytest.mark.parametrize("permitted", [inbound, outbound, at_entry])
def test_what_was_permitted_stands_while_nothing_has_changed(permitted: Any) -> None:
    permit = permitted()
    assert reason_of(judge, permit, in_force()) is None
    another_denied = replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "mallory")})))
    assert reason_of(judge, permit, in_force(another_denied)) is None


CHANGES = {
    "in: route gone": (inbound, in_force(with_inbound(path="/other")), Reason.NO_ROUTE),
    "in: method gone": (inbound, in_force(with_inbound(methods=frozenset({"GET"}))), Reason.METHOD_REFUSED),
    "in: another peer": (inbound, in_force(with_inbound(peers=frozenset({FRONT}))), Reason.POLICY_DENIED),
    "in: more scopes": (inbound, in_force(with_inbound(scopes=frozenset({"docs.write"}))), Reason.INSUFFICIENT_SCOPE),
    "in: subject denied": (
        inbound,
        in_force(replace(POLICY, deny=Deny(subjects=frozenset({(None, "alice")})))),
        Reason.POLICY_DENIED,
    ),
    "in: key gone": (inbound, in_force(key=None), Reason.UNKNOWN_KEY),
    "in: keys too old": (inbound, in_force(stale=frozenset({STS})), Reason.KEYS_UNAVAILABLE),
    "in: issuer gone": (inbound, in_force(with_issuers()), Reason.WRONG_ISSUER),
    "in: another key of that name": (inbound, in_force(key=verification_key("other")), Reason.BAD_SIGNATURE),
    "out: its request may call this no more": (
        lambda: outbound(came_by=SEARCH.mark),
        in_force(with_inbound(may_call=frozenset())),
        Reason.CALL_NOT_ALLOWED,
    ),
    "out: route gone": (outbound, in_force(with_outbound(name="other")), Reason.TARGET_DENIED),
    "out: route leads elsewhere": (
        outbound,
        in_force(with_outbound(upstream=Upstream(scheme="https", host="evil.internal", port=7443))),
        Reason.TARGET_DENIED,
    ),
    "out: another peer pinned": (outbound, in_force(with_outbound(peer=FRONT)), Reason.TARGET_DENIED),
    "out: another audience": (outbound, in_force(with_outbound(audience=str(CRM) + "/x")), Reason.TARGET_DENIED),
    "out: nothing left to ask for": (
        outbound,
        in_force(with_outbound(scopes=frozenset({"crm.admin"}))),
        Reason.INSUFFICIENT_SCOPE,
    ),
    "out: less to ask for than there was": (
        lambda: outbound(scope="crm.read crm.write"),
        in_force(with_outbound(scopes=frozenset({"crm.read"}))),
        Reason.POLICY_DENIED,
    ),
    "out: the request's token denied": (
        outbound,
        in_force(replace(POLICY, deny=Deny(jtis=frozenset({"token-2"})))),
        Reason.POLICY_DENIED,
    ),
    "out: the issued token denied": (
        outbound,
        in_force(replace(POLICY, deny=Deny(jtis=frozenset({"token-3"})))),
        Reason.POLICY_DENIED,
    ),
    "out: key gone": (outbound, in_force(key=None), Reason.UNKNOWN_KEY),
    "out, at an entry: the login's key gone": (at_entry, in_force(login_key=None), Reason.UNKNOWN_KEY),
    "out, at an entry: the login is worth less": (
        at_entry,
        in_force(users(scope_from=ScopeFrom(claim="groups", map={"staff": frozenset({"docs.read"})}))),
        Reason.INSUFFICIENT_SCOPE,
    ),
    "out, at an entry: another key of the login key's name": (
        at_entry,
        in_force(login_key=verification_key("other")),
        Reason.BAD_SIGNATURE,
    ),
    "out, at an entry: no user issuer any more": (
        at_entry,
        in_force(replace(POLICY, entry=replace(ENTRY, issuers={}))),
        Reason.WRONG_ISSUER,
    ),
    "out: another key of that name": (outbound, in_force(key=verification_key("other")), Reason.STS_SIGNATURE),
}


@pytest.mark.parametrize(("permitted", "by", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_what_would_not_be_permitted_now_does_not_stand(permitted: Any, by: InForce, reason: Reason) -> None:
    with pytest.raises(SidecarError) as refused:
        judge(permitted(), by)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("permitted", "reason"),
    [(inbound, Reason.TOKEN_NOT_YET_VALID), (outbound, Reason.STS_LIFETIME), (at_entry, Reason.TOKEN_NOT_YET_VALID)],
)
def test_a_token_that_is_not_valid_yet_does_not_stand(permitted: Any, reason: Reason) -> None:
    with pytest.raises(Denied) as refused:
        judge(permitted(), in_force(), now=NOW - 600)  # the clock was set back
    assert refused.value.reason is reason


LATE = NOW + 10_000  # past every token's end


@pytest.mark.parametrize("permitted", [inbound, outbound, at_entry])
def test_expiry_alone_ends_nothing(permitted: Any) -> None:
    assert reason_of(judge, permitted(), in_force(), now=LATE) is None


WITHDRAWN = {
    "in: key gone": (inbound, in_force(key=None)),
    "in: another key of that name": (inbound, in_force(key=verification_key("other"))),
    "out: key gone": (outbound, in_force(key=None)),
    "out, at an entry: the login's key gone": (at_entry, in_force(login_key=None)),
    "in: keys too old": (inbound, in_force(stale=frozenset({STS}))),
}


@pytest.mark.parametrize(("permitted", "by"), WITHDRAWN.values(), ids=WITHDRAWN.keys())
def test_a_key_that_goes_after_its_tokens_have_expired_ends_nothing(permitted: Any, by: InForce) -> None:
    permit = permitted()
    judge(permit, by, now=LATE)
    with pytest.raises(SidecarError):
        judge(permit, by)


def test_what_is_expired_is_still_judged_by_the_policy() -> None:
    denied = in_force(replace(POLICY, deny=Deny(subjects=frozenset({(None, "alice")}))), key=None)
    for permit in (inbound(), outbound()):
        with pytest.raises(Denied) as refused:
            judge(permit, denied, now=LATE)
        assert refused.value.reason is Reason.POLICY_DENIED


SAME = {
    "nothing": POLICY,
    "the deny list": replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "mallory")}))),
    "issuers of equal settings": replace(POLICY, number=2, issuers={STS: replace(POLICY.issuers[STS])}),
}


@pytest.mark.parametrize("policy", SAME.values(), ids=SAME.keys())
@pytest.mark.parametrize("permitted", [inbound, outbound, at_entry])
def test_no_signature_is_checked_again_while_issuer_and_key_are_equal(
    permitted: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    permit = permitted()
    checked: list[str] = []
    monkeypatch.setattr(verify, "verify_signature", lambda bearer, *_: checked.append(bearer.issuer))
    judge(permit, (policy, Keys(key=verification_key(), login_key=verification_key())))
    assert checked == []
    narrower = replace(POLICY.issuers[STS], profile=replace(POLICY.issuers[STS].profile, leeway_s=1))
    if permitted is not at_entry:
        judge(permit, in_force(replace(POLICY, issuers={STS: narrower})))
        assert checked == [STS]


def test_grounds_do_not_leave_the_process() -> None:
    token = inbound().token
    assert token.grounds is not None
    there = pickle.loads(pickle.dumps(token))
    assert (there.grounds, there) == (None, token)


TO_SELF = replace(TO_CRM, token="self")
OWN = replace(POLICY, outbound=OutboundRoutes([TO_SELF]), own_may_call=frozenset({"crm"}))


def own_permit() -> IssuedPermit:
    plan = plan_own(TO_SELF, policy=OWN, now=NOW)
    return accept_issued(signed(OWN_CLAIMS), plan=plan, key=KEY, policy=OWN, now=NOW)


def test_a_call_of_the_workload_itself_stands_while_its_route_is_open_to_it() -> None:
    assert reason_of(outbound_again, own_permit(), keys=Keys(), policy=OWN, now=NOW) is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        pytest.param(replace(OWN, own_may_call=frozenset()), Reason.CALL_NOT_ALLOWED, id="no longer listed"),
        pytest.param(
            replace(OWN, outbound=OutboundRoutes([TO_CRM])), Reason.OWN_AUTHORITY_REFUSED, id="now an exchange route"
        ),
        pytest.param(replace(OWN, deny=Deny(actors=frozenset({WRITER}))), Reason.POLICY_DENIED, id="denied"),
    ],
)
def test_it_ends_with_that(policy: Policy, reason: Reason) -> None:
    with pytest.raises(SidecarError) as refusal:
        outbound_again(own_permit(), keys=Keys(), policy=policy, now=NOW)
    assert refusal.value.reason is reason


def test_a_call_with_a_bound_token_goes_on_after_our_svid_is_renewed() -> None:
    """Its connection has shown the SVID that the token is bound to, and shows no other."""
    claims = {**ISSUED_CLAIMS, "cnf": {"x5t#S256": verify.thumbprint_of("ab" * 32)}}
    permit = accept_issued(
        signed(claims), plan=plan(), key=KEY, policy=POLICY, now=NOW, own_certificate_sha256="ab" * 32
    )
    for keys in (Keys(), Keys(key=replace(KEY, kid="k1"))):
        outbound_again(permit, keys=keys, policy=POLICY, now=NOW)
    with pytest.raises(Denied) as refused:
        accept_issued(signed(claims), plan=plan(), key=KEY, policy=POLICY, now=NOW, own_certificate_sha256="cd" * 32)
    assert refused.value.reason is Reason.STS_BAD_RESPONSE


def test_a_call_is_judged_as_its_own_operation_and_not_as_that_which_its_token_was_planned_for() -> None:
    """Calls of two operations share a token."""

    def policy(*keys: str) -> Policy:
        listed = {key: replace(TO_CRM, protocol="mcp", operation=key) for key in keys}
        return replace(
            POLICY,
            outbound=OutboundRoutes([replace(TO_CRM, protocol="mcp", operations=Operations(listed))]),
        )

    before = policy("tools/list", "tools/call:*")
    listing = before.outbound.routes[0].for_operation("tools/list")
    planned = plan_outbound(delegate(inbound()), listing, policy=before, now=NOW)
    permit = accept_issued(signed(ISSUED_CLAIMS), plan=planned, key=KEY, policy=before, now=NOW)
    for key in ("tools/list", "tools/call:drop"):
        outbound_again(permit, operation=key, keys=Keys(), policy=before, now=NOW)
    after = policy("tools/list", "tools/call:search")
    outbound_again(permit, operation="tools/list", keys=Keys(), policy=after, now=NOW)
    with pytest.raises(Denied) as refused:
        outbound_again(permit, operation="tools/call:drop", keys=Keys(), policy=after, now=NOW)
    assert refused.value.reason is Reason.OPERATION_REFUSED
