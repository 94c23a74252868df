from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.explain.policy_rows import CROSSING, DELEGATED, ITSELF, LOGIN, Row, Way, covers, rows_of
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import EntryWorkload, Rule, SelfDelegation, SubjectMatch
from tests.fakes.sts import ALICE, ALL_USERS, CRM_URL, FRONT, login_issuer, scopes, small_policy
from tests.fakes.sts import LOGIN as USERS
from tests.fakes.tokens import CRM, PLANNER, WRITER
from tests.sts import test_crossing as crossing

WORTHLESS = login_issuer(scope_from=replace(login_issuer().scope_from, map={}))


def row(policy: StsPolicy, rule: str) -> Row:
    (found,) = (one for one in rows_of(policy) if one.rule == rule)
    return found


def ways(policy: StsPolicy, rule: str) -> tuple[Way, ...]:
    return row(policy, rule).ways


def test_every_rule_is_a_row_with_its_place_its_actor_its_subjects_its_target_and_its_scopes() -> None:
    rows = rows_of(small_policy())
    assert [one.rule for one in rows] == ["rules[0]", "rules[1]", "rules[2]", "rules[3]", "self_rules[0]"]
    url = rows[3]
    assert (url.actor, url.subjects, url.audience, url.workload) == (WRITER, f"alice of {USERS}", CRM_URL, CRM)
    assert url.scopes == ("crm.read",)
    assert url.document()["ways"] == ({"how": "delegated", "origins": ("rules[1]",), "life_s": 300},)


def test_the_ways_lead_from_a_login_through_the_rules_to_the_end() -> None:
    policy = small_policy()
    assert ways(policy, "rules[0]") == (Way(LOGIN, (USERS,), 300),)
    assert ways(policy, "rules[1]") == (Way(DELEGATED, ("rules[0]",), 300),)
    assert ways(policy, "rules[2]") == (Way(DELEGATED, ("rules[1]",), 300),)
    assert ways(policy, "self_rules[0]") == (Way(ITSELF, (), 300),)
    assert [one.text() for one in ways(policy, "rules[0]")] == [f"a login at {USERS}, 300 s at most"]


def test_a_first_tokens_life_is_the_entrys() -> None:
    entry = EntryWorkload(
        workload=FRONT, client_ids={USERS: "a"}, delegation_life_s=7200, long_runs={str(PLANNER): 3600}
    )
    assert ways(small_policy(entries={FRONT: entry}), "rules[0]") == (Way(LOGIN, (USERS,), 3600),)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(small_policy(entries={}), id="nobody logs in"),
        pytest.param(small_policy(login_issuers={USERS: WORTHLESS}), id="a login is worth nothing"),
    ],
)
def test_without_a_beginning_no_rule_applies(policy: StsPolicy) -> None:
    assert [one.rule for one in rows_of(policy) if one.ways] == ["self_rules[0]"]


def planners_rule(*, subject: SubjectMatch = ALL_USERS, audience: SpiffeId = WRITER, scope: str = "crm.read") -> Rule:
    return Rule(actor=PLANNER, subjects=frozenset({subject}), audience=audience, scopes=scopes(scope))


@pytest.mark.parametrize(
    "planners",
    [
        pytest.param(planners_rule(subject=SubjectMatch(USERS, "bob")), id="for another user"),
        pytest.param(planners_rule(scope="docs.read"), id="with other scopes"),
        pytest.param(planners_rule(audience=CRM), id="elsewhere"),
    ],
)
def test_a_rule_whose_actor_receives_nothing_for_it_never_applies(planners: Rule) -> None:
    policy = small_policy()
    cut = replace(policy, rules=(policy.rules[0], planners, policy.rules[2]))
    assert ways(cut, "rules[1]")
    assert ways(cut, "rules[2]") == ()
    assert ways(policy, "rules[2]")


def test_a_crossing_is_a_way_where_it_is_listed() -> None:
    policy = crossing.policy()
    assert ways(policy, "rules[0]") == (Way(CROSSING, (crossing.PARTNERS,), 300),)
    assert ways(policy, "rules[1]") == ()  # at another target than the listed one


def test_a_workloads_own_chain_has_ways_of_its_own() -> None:
    onward = SelfDelegation(workload=PLANNER, actor=CRM, audience=WRITER, scopes=scopes("crm.read"))
    further = SelfDelegation(workload=PLANNER, actor=WRITER, audience=CRM, scopes=scopes("crm.read"))
    policy = small_policy(self_delegations=(onward, further))
    assert ways(policy, "self_delegations[0]") == (Way(DELEGATED, ("self_rules[0]", "self_delegations[1]"), 300),)
    assert ways(policy, "self_delegations[1]") == (Way(DELEGATED, ("self_delegations[0]",), 300),)
    nothing = small_policy(self_delegations=(onward, further), self_rules=())
    assert ways(nothing, "self_delegations[0]") == ways(nothing, "self_delegations[1]") == ()


@pytest.mark.parametrize(
    ("chosen", "rules"),
    [
        pytest.param({"actor": WRITER}, [2, 3], id="who"),
        pytest.param({"audience": CRM}, [2, 3, "self"], id="at a workload"),
        pytest.param({"audience": CRM_URL}, [3], id="at a name"),
        pytest.param({"subject": "alice"}, [0, 1, 2, 3], id="for alice"),
        pytest.param({"subject": "bob"}, [0, 1], id="for bob"),
        pytest.param({"subject": str(PLANNER)}, [0, 1, "self"], id="for a workload"),
        pytest.param({"subject": "bob", "audience": CRM}, [], id="for bob at the CRM"),
    ],
)
def test_rows_are_chosen_by_who_for_whom_and_where(chosen: dict[str, str], rules: list[object]) -> None:
    policy = small_policy()
    asked = {"actor": None, "subject": None, "audience": None, **chosen}
    found = [one for one in rows_of(policy) if covers(one, policy, **asked)]
    assert [one.rule for one in found] == ["self_rules[0]" if one == "self" else f"rules[{one}]" for one in rules]
    assert ALICE in policy.rules[2].subjects
