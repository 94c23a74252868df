from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.plan import Delegation, Plan
from delegation_core.policy import Deny, Policy
from delegation_core.route import OutboundRoute
from sidecar.proxy.journeys.plans import MAX_OF_SECOND, Plans
from tests.core.world import NOW, POLICY, TO_CRM, delegation, login

MIB = 1024 * 1024
LATER = replace(POLICY, number=POLICY.number + 1)


def planned(
    plans: Plans, of: Delegation, route: OutboundRoute = TO_CRM, policy: Policy = POLICY, now: int = NOW
) -> Plan:
    return plans.plan(of, route, policy=policy, now=now)


def refusal_of(
    plans: Plans, of: Delegation, route: OutboundRoute = TO_CRM, policy: Policy = POLICY, now: int = NOW
) -> Reason:
    with pytest.raises(Denied) as refused:
        planned(plans, of, route, policy, now)
    return refused.value.reason


def test_a_plan_is_found_again_for_the_same_delegation_route_and_policy_within_its_time() -> None:
    plans, of = Plans(MIB), delegation()
    first = planned(plans, of)
    assert planned(plans, of, now=of.token.expires_at - 1) is first
    assert (plans.hits, plans.misses, len(plans)) == (1, 1, 1)
    assert planned(plans, replace(of)) is not first  # the same token, judged again


def test_a_plan_is_made_again_for_whatever_it_depends_on() -> None:
    plans, of = Plans(MIB), delegation()
    planned(plans, of)
    denied = replace(LATER, deny=Deny(subjects=frozenset({(None, "alice")})))
    assert refusal_of(plans, of, policy=denied) is Reason.POLICY_DENIED
    planned(plans, of)
    assert refusal_of(plans, of, replace(TO_CRM, scopes=frozenset({"crm.write"}))) is Reason.INSUFFICIENT_SCOPE
    assert refusal_of(plans, of, now=of.token.expires_at) is Reason.TOKEN_EXPIRED


def test_a_refusal_is_not_kept() -> None:
    plans, of = Plans(MIB), delegation(may_call=frozenset({"mail"}))
    for _ in range(2):
        assert refusal_of(plans, of) is Reason.CALL_NOT_ALLOWED
    assert len(plans) == 0


def test_a_login_is_planned_again_in_each_second_because_its_authority_depends_on_the_time() -> None:
    assert POLICY.entry is not None
    policy = replace(POLICY, entry=replace(POLICY.entry, first_token_life_s=60))
    plans, of = Plans(MIB), login()
    first = planned(plans, of, policy=policy)
    assert planned(plans, of, policy=policy) is first
    later = planned(plans, of, policy=policy, now=NOW + 1)
    assert later.max_expires_at == first.max_expires_at + 1
    assert planned(plans, of, policy=policy) == first  # the clock was set back
    assert refusal_of(plans, of, policy=policy, now=of.token.expires_at) is Reason.TOKEN_EXPIRED
    assert len(plans) == 0  # the second's plans need no bytes of the cache


def test_the_plan_of_a_login_is_made_again_within_the_second_for_whatever_it_depends_on() -> None:
    plans, of = Plans(MIB), login()
    first = planned(plans, of)
    assert planned(plans, replace(of)) is not first  # the same login, judged again
    denied = replace(LATER, deny=Deny(subjects=frozenset({(None, "alice")})))
    assert refusal_of(plans, of, policy=denied) is Reason.POLICY_DENIED
    planned(plans, of)
    assert refusal_of(plans, of, replace(TO_CRM, scopes=frozenset({"crm.write"}))) is Reason.INSUFFICIENT_SCOPE


def test_the_plans_of_one_second_are_few() -> None:
    plans = Plans(MIB)
    one = login()
    of_first = planned(plans, one)
    for number in range(MAX_OF_SECOND - 1):
        planned(plans, replace(one, token=replace(one.token, raw=f"raw-{number}")))
    assert planned(plans, one) is of_first
    planned(plans, replace(one, token=replace(one.token, raw="raw")))
    assert planned(plans, one) is not of_first


def test_the_oldest_plans_are_evicted_and_expired_ones_swept() -> None:
    plans = Plans(2 * (delegation().token.held_bytes + 2048))
    several = [delegation(token=replace(delegation().token, raw=f"raw-{number}")) for number in range(9)]
    for one in several:
        planned(plans, one)
    assert plans.evicted > 0
    assert plans.bytes <= plans.max_bytes
    plans.sweep(several[0].token.expires_at)
    assert len(plans) == 0
