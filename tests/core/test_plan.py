from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.crossing import Crossing
from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, plan_outbound, plan_own
from delegation_core.policy import Deny, Policy
from delegation_core.route import InboundRoute, OutboundRoute
from tests.core.world import (
    CRM,
    ENTRY,
    IDP,
    INBOUND_CLAIMS,
    LOGIN_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    TO_CRM,
    WRITER,
    Claims,
    delegation,
    login,
    plan,
    without,
)


def test_a_call_is_planned_for_its_subject_its_target_and_no_more_than_came_in() -> None:
    planned = plan()
    assert planned.audience == str(CRM)
    assert planned.scope == {"crm.read"}
    assert (planned.actor, planned.sts_issuer) == (WRITER, STS)
    assert (planned.expected_subject, planned.max_expires_at) == ("alice", INBOUND_CLAIMS["exp"])


def test_a_call_planned_at_an_entry_expects_the_prefixed_subject() -> None:
    assert plan(login()).expected_subject == "idp|alice"


@pytest.mark.parametrize(
    ("ceiling_s", "entry_s", "route_s", "login_s", "bound_s"),
    [
        pytest.param(None, None, None, 540, 300 + 30, id="five minutes by default"),
        pytest.param(None, None, None, 200, 200, id="never beyond the login"),
        pytest.param(None, 3600, None, 540, 540, id="nor where the entry allows longer ones"),
        pytest.param(None, 7200, None, 36000, 3600 + 30, id="an hour without a ceiling of its own"),
        pytest.param(
            7200, None, None, 100, 300 + 30, id="a ceiling alone lengthens nothing but lets it outlive a login"
        ),
        pytest.param(60, None, None, 540, 60 + 30, id="a low ceiling"),
        pytest.param(7200, 900, None, 540, 900 + 30, id="as long as the entry says"),
        pytest.param(7200, 900, 7200, 540, 7200 + 30, id="longer for one route"),
        pytest.param(7200, 900, 60, 540, 60 + 30, id="shorter for one route"),
        pytest.param(7200, 900, 7201, 540, 7200 + 30, id="no route beyond the ceiling"),
    ],
)
def test_the_first_token_lives_as_long_as_entry_and_route_say(
    ceiling_s: int | None, entry_s: int | None, route_s: int | None, login_s: int, bound_s: int
) -> None:
    entry = replace(ENTRY, delegation_life_s=ceiling_s, first_token_life_s=entry_s)
    route = replace(TO_CRM, first_token_life_s=route_s)
    policy = replace(POLICY, entry=entry, outbound=OutboundRoutes([route]))
    before = login(LOGIN_CLAIMS | {"exp": NOW + login_s})
    assert plan_outbound(before, route, policy=policy, now=NOW).max_expires_at == NOW + bound_s


def test_no_route_lengthens_a_later_token() -> None:
    route = replace(TO_CRM, first_token_life_s=3600)
    planned = plan_outbound(delegation(), route, policy=POLICY, now=NOW)
    assert planned.max_expires_at == INBOUND_CLAIMS["exp"]


Case = tuple[Delegation, OutboundRoute, Policy]
LAWFUL: Case = (delegation(), TO_CRM, POLICY)
LOGIN: Case = (login(), TO_CRM, POLICY)


def case(base: Case, *, d: Any = None, route: Any = None, policy: Any = None) -> Case:
    return replace(base[0], **d or {}), replace(base[1], **route or {}), replace(base[2], **policy or {})


def with_claims(**claims: Any) -> Case:
    return delegation(INBOUND_CLAIMS | claims), TO_CRM, POLICY


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(case(LAWFUL, d={"may_call": frozenset()}), Reason.CALL_NOT_ALLOWED, id="empty means none"),
        pytest.param(case(LAWFUL, route={"name": "mail"}), Reason.CALL_NOT_ALLOWED, id="another target"),
        pytest.param(case(LAWFUL, route={"token": "self"}), Reason.OWN_AUTHORITY_REFUSED, id="own authority"),
        pytest.param(with_claims(exp=NOW), Reason.TOKEN_EXPIRED, id="exp is now"),
        pytest.param(with_claims(exp=NOW - 10), Reason.TOKEN_EXPIRED, id="exp has passed, within the leeway"),
        pytest.param(
            case(LAWFUL, policy={"deny": Deny(txns=frozenset({"txn-1"}))}), Reason.POLICY_DENIED, id="denied since"
        ),
        pytest.param(
            case(LAWFUL, policy={"deny": Deny(actors=frozenset({str(WRITER)}))}),
            Reason.POLICY_DENIED,
            id="we are denied ourselves",
        ),
        pytest.param(case(LAWFUL, d={"scope": frozenset()}), Reason.INSUFFICIENT_SCOPE, id="nothing came in"),
        pytest.param(
            case(LAWFUL, route={"scopes": frozenset({"mail.send"})}), Reason.INSUFFICIENT_SCOPE, id="nothing in common"
        ),
        pytest.param(case(LAWFUL, route={"scopes": frozenset()}), Reason.INSUFFICIENT_SCOPE, id="no ceiling: nothing"),
        pytest.param(
            with_claims(iss="https://sts.partner.example"), Reason.ISSUER_NOT_FOR_ROUTE, id="another STS's subject"
        ),
        pytest.param(with_claims(iss=IDP), Reason.ISSUER_NOT_FOR_ROUTE, id="a user issuer's subject, not at entry"),
        pytest.param(
            case(LOGIN, policy={"deny": Deny(subjects=frozenset({(STS, "idp|alice")}))}),
            Reason.POLICY_DENIED,
            id="denied by the name a login's subject has in the mesh",
        ),
        pytest.param(case(LOGIN, policy={"entry": None}), Reason.NOT_AN_ENTRY, id="no longer an entry"),
        pytest.param(
            case(LOGIN, policy={"entry": replace(ENTRY, issuers={})}), Reason.NOT_AN_ENTRY, id="user issuer removed"
        ),
        pytest.param(
            case(LOGIN, policy={"entry": replace(ENTRY, may_call=frozenset())}),
            Reason.CALL_NOT_ALLOWED,
            id="the entry opens less by now",
        ),
        pytest.param(
            case(LOGIN, d={"may_call": frozenset()}), Reason.CALL_NOT_ALLOWED, id="the entry opens more by now"
        ),
    ],
)
def test_a_call_that_may_not_be_made_is_refused(refused: Case, reason: Reason) -> None:
    of, route, policy = refused
    with pytest.raises(Denied) as refusal:
        plan_outbound(of, route, policy=policy, now=NOW)
    assert refusal.value.reason is reason


CAME_BY_SEARCH = delegation(came_by=SEARCH.mark, may_call=frozenset({"crm", "mail"}))
ROUTES_OF_NOW = {
    "as it was": (SEARCH, True),
    "opens this one still, and one more": (replace(SEARCH, may_call=frozenset({"crm", "files"})), True),
    "renamed": (replace(SEARCH, name="find"), True),
    "elsewhere": (replace(SEARCH, path="/find", methods=frozenset({"GET"})), True),
    "opens another": (replace(SEARCH, may_call=frozenset({"mail"})), False),
    "renamed, and opens another": (replace(SEARCH, name="find", may_call=frozenset({"mail"})), False),
    "opens nothing": (replace(SEARCH, may_call=frozenset()), False),
    "gone": (replace(SEARCH, name="find", path="/find"), False),
}


@pytest.mark.parametrize(("route", "open_still"), ROUTES_OF_NOW.values(), ids=ROUTES_OF_NOW.keys())
def test_a_request_may_call_what_its_route_opened_and_opens_now(route: InboundRoute, open_still: bool) -> None:
    plan(CAME_BY_SEARCH)
    by = replace(POLICY, inbound=InboundRoutes([route]))
    if open_still:
        assert plan(CAME_BY_SEARCH, by).route is TO_CRM
        return
    with pytest.raises(Denied) as refusal:
        plan(CAME_BY_SEARCH, by)
    assert refusal.value.reason is Reason.CALL_NOT_ALLOWED


def test_what_a_route_opens_only_now_is_not_open_to_a_request_of_before() -> None:
    with pytest.raises(Denied) as refusal:
        plan(delegation(came_by=SEARCH.mark, may_call=frozenset({"mail"})))
    assert refusal.value.reason is Reason.CALL_NOT_ALLOWED


@pytest.mark.parametrize("of", [delegation(), login()], ids=["delegated", "entry"])
def test_without_an_sts_no_exchange_is_planned(of: Delegation) -> None:
    with pytest.raises(Unavailable) as refusal:
        plan_outbound(of, TO_CRM, policy=replace(POLICY, token_services=frozenset()), now=NOW)
    assert refusal.value.reason is Reason.STS_UNAVAILABLE


def test_equal_plans_share_a_key() -> None:
    assert plan().key == plan().key
    assert hash(plan().key) == hash(plan().key)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: plan(delegation(INBOUND_CLAIMS | {"jti": "x"})), id="another inbound token"),
        pytest.param(lambda: replace(plan(), audience="other"), id="another audience"),
        pytest.param(lambda: replace(plan(), scope=frozenset({"crm.write"})), id="another scope"),
        pytest.param(lambda: plan(policy=replace(POLICY, workload=CRM)), id="another workload"),
        pytest.param(lambda: replace(plan(), sts_issuer="https://sts2.acme.example"), id="another STS"),
    ],
)
def test_plans_that_differ_in_what_the_answer_depends_on_have_different_keys(other: Callable[[], Any]) -> None:
    assert other().key != plan().key


def test_a_plan_shows_no_token() -> None:
    claims: Claims = INBOUND_CLAIMS
    assert f"raw-of-{claims['jti']}" not in repr(plan())


PARTNERS = "https://sts.partner.example"
CROSSING = Crossing(issuer=PARTNERS, subject_prefix="partner:", scopes={"docs.read": frozenset({"crm.read", "x"})})
CROSSED: Case = (
    delegation(INBOUND_CLAIMS | {"iss": PARTNERS}),
    replace(TO_CRM, crossings={PARTNERS: CROSSING}),
    POLICY,
)


def test_a_crossing_is_planned_with_its_prefix_and_what_its_map_says() -> None:
    of, route, policy = CROSSED
    planned = plan_outbound(of, route, policy=policy, now=NOW)
    assert (planned.expected_subject, planned.sts_issuer) == ("partner:alice", STS)
    assert planned.scope == {"crm.read"}, "the map's, within the route's"
    assert planned.max_expires_at == INBOUND_CLAIMS["exp"]
    assert planned.crossing is CROSSING


def test_tokens_of_the_routes_own_issuer_cross_nothing() -> None:
    _, route, policy = CROSSED
    assert plan_outbound(delegation(), route, policy=policy, now=NOW) == replace(plan(), route=route)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(case(CROSSED, route={"crossings": {}}), Reason.ISSUER_NOT_FOR_ROUTE, id="not listed"),
        pytest.param(
            case(CROSSED, route={"crossings": {IDP: replace(CROSSING, issuer=IDP)}}),
            Reason.ISSUER_NOT_FOR_ROUTE,
            id="another is listed",
        ),
        pytest.param(
            case(CROSSED, d={"scope": frozenset({"crm.read"})}),
            Reason.INSUFFICIENT_SCOPE,
            id="a scope that is not in the map, though the route's own has this name",
        ),
        pytest.param(
            case(CROSSED, route={"scopes": frozenset({"crm.write"})}), Reason.INSUFFICIENT_SCOPE, id="above the route"
        ),
        pytest.param(
            case(CROSSED, policy={"deny": Deny(subjects=frozenset({(STS, "partner:alice")}))}),
            Reason.POLICY_DENIED,
            id="denied by the name beyond",
        ),
        pytest.param(
            case(CROSSED, policy={"deny": Deny(subjects=frozenset({(PARTNERS, "alice")}))}),
            Reason.POLICY_DENIED,
            id="denied by the name before",
        ),
        pytest.param(
            (delegation(without(INBOUND_CLAIMS, "act") | {"iss": PARTNERS}), *CROSSED[1:]),
            Reason.OWN_AUTHORITY_REFUSED,
            id="no actor",
        ),
        pytest.param(
            (delegation(INBOUND_CLAIMS | {"iss": PARTNERS, "sub": str(PLANNER)}), *CROSSED[1:]),
            Reason.OWN_AUTHORITY_REFUSED,
            id="an actor for itself",
        ),
        pytest.param(
            (delegation(INBOUND_CLAIMS | {"iss": PARTNERS, "exp": NOW}), *CROSSED[1:]),
            Reason.TOKEN_EXPIRED,
            id="expired",
        ),
    ],
)
def test_a_crossing_that_is_not_listed_as_it_is_wanted_is_refused(refused: Case, reason: Reason) -> None:
    of, route, policy = refused
    with pytest.raises(Denied) as refusal:
        plan_outbound(of, route, policy=policy, now=NOW)
    assert refusal.value.reason is reason


def test_the_route_says_whose_token_is_asked_for() -> None:
    other = "https://sts2.acme.example"
    both = replace(
        POLICY,
        issuers={**POLICY.issuers, other: replace(POLICY.issuers[STS], issuer=other)},
        token_services=frozenset({STS, other}),
    )
    planned = plan_outbound(delegation(), TO_CRM, policy=both, now=NOW)
    assert planned.sts_issuer == STS
    with pytest.raises(Denied) as refusal:
        plan_outbound(delegation(), replace(TO_CRM, issuer=other), policy=both, now=NOW)
    assert refusal.value.reason is Reason.ISSUER_NOT_FOR_ROUTE


TO_SELF = replace(TO_CRM, token="self")
OWN = replace(POLICY, outbound=OutboundRoutes([TO_SELF]), own_may_call=frozenset({"crm"}))


def test_a_call_for_the_workload_itself_is_planned_without_a_subject_token() -> None:
    planned = plan_own(TO_SELF, policy=OWN, now=NOW)
    assert (planned.delegation, planned.subject_token, planned.audience) == (None, None, str(CRM))
    assert (planned.expected_subject, planned.actor, planned.scope) == (str(WRITER), WRITER, TO_CRM.scopes)
    assert planned.max_expires_at == NOW + 3600 + 30
    assert planned.key != plan().key
    assert planned.key == plan_own(TO_SELF, policy=OWN, now=NOW + 60).key


@pytest.mark.parametrize(
    ("route", "policy", "reason"),
    [
        pytest.param(TO_CRM, OWN, Reason.OWN_AUTHORITY_REFUSED, id="an exchange route"),
        pytest.param(TO_SELF, POLICY, Reason.CALL_NOT_ALLOWED, id="not listed"),
        pytest.param(
            TO_SELF, replace(OWN, deny=Deny(actors=frozenset({WRITER}))), Reason.POLICY_DENIED, id="deny list"
        ),
        pytest.param(TO_SELF, replace(OWN, token_services=frozenset()), Reason.STS_UNAVAILABLE, id="no token service"),
    ],
)
def test_the_same_with_one_fact_changed_is_refused(route: OutboundRoute, policy: Policy, reason: Reason) -> None:
    with pytest.raises(SidecarError) as refusal:
        plan_own(route, policy=policy, now=NOW)
    assert refusal.value.reason is reason
