from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.rules import ANYONE, EntryWorkload, SubjectMatch
from tests.fakes.sts import CRM_URL, FRONT, LOGIN, OTHER_LOGIN, PARTNER, scopes, small_policy
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER


def entry(life_s: int, **changes: Any) -> dict[SpiffeId, EntryWorkload]:
    return {FRONT: EntryWorkload(workload=FRONT, client_ids={LOGIN: "app"}, delegation_life_s=life_s, **changes)}


@pytest.mark.parametrize(
    ("match", "issuer", "subject", "covered"),
    [
        pytest.param(SubjectMatch(LOGIN, "alice"), LOGIN, "alice", True, id="the one"),
        pytest.param(SubjectMatch(LOGIN, "alice"), LOGIN, "Alice", False, id="another case"),
        pytest.param(SubjectMatch(LOGIN, "alice"), OTHER_LOGIN, "alice", False, id="the same name elsewhere"),
        pytest.param(SubjectMatch(LOGIN, ANYONE), LOGIN, "bob", True, id="anyone there"),
        pytest.param(SubjectMatch(LOGIN, ANYONE), OTHER_LOGIN, "bob", False, id="anyone elsewhere"),
        pytest.param(SubjectMatch(ANYONE, "alice"), OTHER_LOGIN, "alice", True, id="the name anywhere"),
        pytest.param(SubjectMatch(ANYONE, ANYONE), OTHER_LOGIN, "bob", True, id="anyone anywhere"),
        pytest.param(SubjectMatch(LOGIN, "*"), LOGIN, "bob", False, id="a star is a name like any other"),
        pytest.param(SubjectMatch(LOGIN, ""), LOGIN, "bob", False, id="an empty name is nobody's"),
    ],
)
def test_subjects_are_pairs_compared_byte_for_byte(
    match: SubjectMatch, issuer: str, subject: str, covered: bool
) -> None:
    assert match.matches(issuer, subject) is covered


def test_a_workload_owns_its_spiffe_id_and_its_targets_names_and_no_others() -> None:
    policy = small_policy()
    assert policy.audiences_of(CRM) == {CRM, CRM_URL}
    assert policy.audiences_of(FRONT) == {FRONT}


@pytest.mark.parametrize(
    ("changes", "longest_s"),
    [
        pytest.param({"token_life_s": 200}, 300, id="a first token lives five minutes where nothing else is said"),
        pytest.param({"entries": {}, "token_life_s": 200}, 200, id="no first tokens"),
        pytest.param({"entries": entry(60), "token_life_s": 200}, 200, id="first tokens that live shorter"),
        pytest.param({"entries": entry(7200)}, 300, id="a ceiling that nothing reaches"),
        pytest.param({"entries": entry(7200, first_token_life_s=900)}, 900, id="first tokens that live longer"),
        pytest.param({"entries": entry(7200, long_runs={CRM: 7200})}, 7200, id="first tokens of long runs"),
    ],
)
def test_the_longest_life_of_a_token_is_known(changes: dict[str, Any], longest_s: int) -> None:
    assert small_policy(**changes).longest_life_s == longest_s


def test_rules_are_found_by_actor_and_audience() -> None:
    policy = small_policy()
    assert [rule.audience for rule in policy.rules_for(WRITER, CRM_URL)] == [CRM_URL]
    assert policy.rules_for(PLANNER, CRM) == ()
    assert policy.rules_for(WRITER, PLANNER) == ()


def test_own_authority_is_found_by_the_pair() -> None:
    policy = small_policy()
    assert policy.self_scopes(PLANNER, CRM) == scopes("crm.read")
    assert policy.self_scopes(PLANNER, WRITER) is None
    assert policy.self_scopes(WRITER, CRM) is None


def test_a_target_is_found_by_each_of_its_names() -> None:
    policy = small_policy()
    assert policy.target_of(CRM) is policy.target_of(CRM_URL) is not None
    assert policy.target_of(PARTNER) is None


def test_the_service_believes_itself_by_the_strictest_profile() -> None:
    own = small_policy().own
    assert (own.issuer, own.profile.name) == (ISSUER, "sts")


def test_a_policy_with_one_thing_changed_goes_by_what_it_says_now() -> None:
    policy = small_policy()
    fewer = replace(policy, rules=policy.rules[:2], self_rules=(), targets=policy.targets[:2], token_life_s=7)
    assert fewer.rules_for(WRITER, CRM_URL) == ()
    assert fewer.rules_for(FRONT, PLANNER) == policy.rules_for(FRONT, PLANNER) == policy.rules[:1]
    assert fewer.target_of(CRM) is None
    assert fewer.audiences_of(CRM) == {CRM}
    assert fewer == replace(policy, rules=policy.rules[:2], self_rules=(), targets=policy.targets[:2], token_life_s=7)


def test_several_rules_for_one_pair_add_up_in_their_order() -> None:
    policy = small_policy()
    more = replace(policy, rules=(*policy.rules, replace(policy.rules[0], scopes=frozenset({"docs.read"}))))
    assert more.rules_for(FRONT, PLANNER) == (policy.rules[0], more.rules[-1])
