from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.act import parse_act
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import JwtSvid
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT, ExchangeRequest
from delegation_core.verify import VerifiedToken
from sidecar.sts.mint import FreshNames, Grant, authorize_exchange, require_lawful_form
from sidecar.sts.rules import ANYONE, Rule, SelfDelegation, SubjectMatch, Target
from tests.fakes.sts import ALL_USERS, LOGIN, small_policy
from tests.fakes.tokens import CRM, ISSUER, NOW, PLANNER, WRITER

REQUEST: Final = ExchangeRequest(
    subject_token="",
    subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
    actor_token="",
    actor_token_type=TOKEN_TYPE_JWT,
    audience=(CRM,),
)
ACTOR: Final = JwtSvid(spiffe_id=WRITER, raw="", expires_at=NOW, not_before=0, leeway_s=0, fingerprint="", kid="k")
FRESH: Final = FreshNames(jti="new", txn="new-txn")
ALPHABET: Final = "abcdef"

scope_sets = st.frozensets(st.sampled_from(ALPHABET))


def subject(act: Mapping[str, object], **changes: Any) -> VerifiedToken:
    token = VerifiedToken(
        raw="",
        fingerprint="",
        issuer=ISSUER,
        subject="alice",
        audience=WRITER,
        scope=frozenset(ALPHABET),
        expires_at=NOW + 100,
        sub_id=(LOGIN, "alice"),
        chain=parse_act({"act": act}),
        claims={},
    )
    return replace(token, **changes)


def decide(request: ExchangeRequest, token: VerifiedToken, allowed: frozenset[str] = frozenset(ALPHABET)) -> Grant:
    policy = small_policy(
        targets=(Target(workload=CRM, scopes=frozenset(ALPHABET)),),
        rules=(Rule(actor=WRITER, subjects=frozenset({ALL_USERS}), audience=CRM, scopes=allowed),),
        self_rules=(),
    )
    return authorize_exchange(request, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH)


@given(asked=st.none() | scope_sets, held=scope_sets, allowed=scope_sets)
def test_scope_is_what_all_limits_have_in_common_or_the_exchange_is_refused(
    asked: frozenset[str] | None, held: frozenset[str], allowed: frozenset[str]
) -> None:
    expected = held & allowed & (held if asked is None else asked)
    request, token = replace(REQUEST, scope=asked), subject({"sub": PLANNER}, scope=held)
    if expected:
        assert decide(request, token, allowed).scope == expected
        return
    with pytest.raises(Denied) as refused:
        decide(request, token, allowed)
    assert refused.value.reason is Reason.SCOPE_REFUSED


acts = st.recursive(
    st.fixed_dictionaries(
        {"sub": st.sampled_from([PLANNER, "legacy", CRM])}, optional={"iss": st.just("https://x.example")}
    ),
    lambda inner: st.fixed_dictionaries({"sub": st.just("inner"), "act": inner}),
    max_leaves=7,
)


@given(act=acts)
def test_the_chain_that_came_in_stands_whole_behind_the_new_actor(act: dict[str, object]) -> None:
    claims = decide(REQUEST, subject(act)).claims
    assert claims["act"] == {"sub": WRITER, "act": act}


@given(act=acts)
def test_by_the_actor_profile_the_new_actor_has_an_issuer_and_earlier_ones_stay_as_they_came(
    act: dict[str, object],
) -> None:
    policy = small_policy(act_iss="spiffe://acme.example")
    token = subject(act, scope=frozenset({"crm.read"}))
    claims = authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH).claims
    assert claims["act"] == {"iss": "spiffe://acme.example", "sub": WRITER, "act": act}


def asked_under_the_actor_profile(may_act: dict[str, str]) -> Grant:
    policy = small_policy(act_iss="spiffe://acme.example")
    token = subject({"sub": PLANNER}, scope=frozenset({"crm.read"}), claims={"may_act": may_act})
    return authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH)


@pytest.mark.parametrize("may_act", [{"sub": WRITER}, {"iss": "spiffe://acme.example", "sub": WRITER}])
def test_may_act_can_name_the_issuer_of_the_actor_by_the_actor_profile(may_act: dict[str, str]) -> None:
    assert asked_under_the_actor_profile(may_act).claims["client_id"] == WRITER


@pytest.mark.parametrize(
    "may_act",
    [{"iss": "https://sts.acme.example", "sub": WRITER}, {"iss": "spiffe://acme.example", "sub": PLANNER}],
)
def test_may_act_that_names_another_pair_is_refused_by_the_actor_profile(may_act: dict[str, str]) -> None:
    with pytest.raises(Denied) as refused:
        asked_under_the_actor_profile(may_act)
    assert refused.value.reason is Reason.MAY_ACT_REFUSED


@given(rest_s=st.integers(1, 100_000), life_s=st.integers(1, 3600))
def test_a_token_never_outlives_its_subject_token_or_the_policy(rest_s: int, life_s: int) -> None:
    token = subject({"sub": PLANNER}, expires_at=NOW + rest_s, scope=frozenset({"crm.read"}))
    policy = small_policy(token_life_s=life_s)
    grant = authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH)
    assert grant.expires_in == min(rest_s, life_s)
    assert grant.claims["exp"] == NOW + grant.expires_in


def test_a_policy_may_allow_fewer_actors_than_the_standard_limit() -> None:
    policy = small_policy(max_depth=2)
    one, two = {"sub": PLANNER}, {"sub": PLANNER, "act": {"sub": "legacy"}}
    scope = frozenset({"crm.read"})
    assert authorize_exchange(
        REQUEST, actor=ACTOR, subject=subject(one, scope=scope), policy=policy, now=NOW, fresh=FRESH
    ).claims["act"] == {"sub": WRITER, "act": one}
    with pytest.raises(Denied) as refused:
        authorize_exchange(REQUEST, actor=ACTOR, subject=subject(two, scope=scope), policy=policy, now=NOW, fresh=FRESH)
    assert refused.value.reason is Reason.ACT_TOO_DEEP


def test_a_token_without_a_transaction_gets_one_and_without_a_jti_is_no_parent() -> None:
    claims = decide(REQUEST, subject({"sub": PLANNER}, sub_id=(LOGIN, "alice"))).claims
    assert claims["txn"] == "new-txn"
    assert "parent_jti" not in claims


def test_a_login_that_is_not_known_is_not_made_up() -> None:
    everybody = frozenset({SubjectMatch(ANYONE, ANYONE)})
    rule = Rule(actor=WRITER, subjects=everybody, audience=CRM, scopes=frozenset({"crm.read"}))
    token = subject({"sub": PLANNER}, scope=frozenset({"crm.read"}), sub_id=None)
    policy = small_policy(rules=(rule,))
    claims = authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH).claims
    assert (claims["sub"], "sub_id" in claims) == ("alice", False)


def test_rules_of_one_actor_at_one_target_add_up() -> None:
    rules = tuple(
        Rule(actor=WRITER, subjects=frozenset({ALL_USERS}), audience=CRM, scopes=frozenset({scope}))
        for scope in ("crm.read", "crm.write")
    )
    token = subject({"sub": PLANNER}, scope=frozenset({"crm.read", "crm.write"}))
    policy = small_policy(rules=rules)
    grant = authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH)
    assert grant.scope == {"crm.read", "crm.write"}


def test_a_request_in_lawful_form_hands_out_its_actor_token() -> None:
    assert require_lawful_form(replace(REQUEST, actor_token="x"), ISSUER, small_policy()) == "x"
    with pytest.raises(Denied) as refused:
        require_lawful_form(REQUEST, "https://unknown.example", small_policy())
    assert refused.value.reason is Reason.WRONG_ISSUER


def test_what_is_granted_is_not_shown_by_its_repr() -> None:
    assert "alice" not in repr(decide(REQUEST, subject({"sub": PLANNER})))


ONWARD: Final = SelfDelegation(workload=PLANNER, actor=WRITER, audience=CRM, scopes=frozenset("ab"))
ANYBODY: Final = SubjectMatch(ANYONE, ANYONE)


def onwards(token: VerifiedToken, *listed: SelfDelegation) -> Grant:
    """Exchange a token of a chain that a workload started for itself, beside a rule that speaks of anybody."""
    policy = small_policy(
        targets=(Target(workload=CRM, scopes=frozenset(ALPHABET)), Target(workload=PLANNER, scopes=frozenset("a"))),
        rules=(Rule(actor=WRITER, subjects=frozenset({ANYBODY}), audience=CRM, scopes=frozenset(ALPHABET)),),
        self_rules=(),
        self_delegations=listed,
    )
    return authorize_exchange(REQUEST, actor=ACTOR, subject=token, policy=policy, now=NOW, fresh=FRESH)


@pytest.mark.parametrize("act", [None, {"sub": CRM}], ids=["its own token", "a later one"])
def test_a_workload_s_chain_goes_on_where_it_is_listed_whatever_rules_say_of_anybody(
    act: dict[str, str] | None,
) -> None:
    changes: dict[str, Any] = {"subject": str(PLANNER), "client_id": str(PLANNER), "sub_id": None, "txn": "t"}
    token = subject(act or {"sub": CRM}, **changes)
    if act is None:
        token = replace(token, chain=None)
    grant = onwards(token, ONWARD)
    assert grant.scope == frozenset("ab")
    assert (grant.claims["sub"], grant.claims["client_id"], grant.claims["txn"]) == (PLANNER, WRITER, "t")
    assert grant.claims["act"] == {"sub": WRITER} if act is None else {"sub": WRITER, "act": act}
    assert "sub_id" not in grant.claims
    assert grant.expires_in <= 100
    for other in (replace(ONWARD, workload=CRM), replace(ONWARD, audience=PLANNER, scopes=frozenset("a"))):
        with pytest.raises(Denied) as refused:
            onwards(token, other)
        assert refused.value.reason in {Reason.NOT_AN_ENTRY, Reason.DELEGATION_NOT_ALLOWED}
