from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.login_issuer import ScopeFrom
from delegation_core.policy import Deny, Entry
from delegation_core.revocation import NO_NAMES, Use
from delegation_core.spiffe_id import SpiffeId
from tests.core.world import (
    IDP,
    INBOUND_CLAIMS,
    PLANNER,
    POLICY,
    STS,
    STS_TRUST,
    USERS,
    WRITER,
    reason_of,
    verified,
)

TOKEN = verified(INBOUND_CLAIMS, ancestors=("token-0",))


@pytest.mark.parametrize(
    "deny",
    [
        pytest.param(Deny(subjects=frozenset({(STS, "alice")})), id="subject"),
        pytest.param(Deny(subjects=frozenset({(None, "alice")})), id="subject of any issuer"),
        pytest.param(Deny(subjects=frozenset({(IDP, "alice")})), id="subject by its login pair"),
        pytest.param(Deny(actors=frozenset({str(PLANNER)})), id="current actor"),
        pytest.param(Deny(jtis=frozenset({"token-2"})), id="token"),
        pytest.param(Deny(jtis=frozenset({"token-1"})), id="the token it was exchanged from"),
        pytest.param(Deny(jtis=frozenset({"token-0"})), id="a token before that"),
        pytest.param(Deny(txns=frozenset({"txn-1"})), id="transaction"),
    ],
)
def test_what_the_deny_list_has_is_refused(deny: Deny) -> None:
    with pytest.raises(Denied) as refusal:
        deny.check(Use(TOKEN, PLANNER, NO_NAMES))
    assert refusal.value.reason is Reason.POLICY_DENIED


@pytest.mark.parametrize(
    "deny",
    [
        pytest.param(Deny(), id="empty"),
        pytest.param(Deny(subjects=frozenset({("https://other.example", "alice")})), id="another issuer's subject"),
        pytest.param(Deny(subjects=frozenset({(STS, "Alice")})), id="another case"),
        pytest.param(Deny(actors=frozenset({"spiffe://acme.example/agent/front"})), id="an earlier actor is history"),
        pytest.param(Deny(actors=frozenset({"spiffe://acme.example/agent"})), id="a part of the actor"),
        pytest.param(Deny(jtis=frozenset({"token"}), txns=frozenset({"txn"})), id="parts of ids"),
    ],
)
def test_what_the_deny_list_does_not_have_passes(deny: Deny) -> None:
    assert reason_of(deny.check, Use(TOKEN, PLANNER, NO_NAMES)) is None


def test_a_denied_actor_stops_the_chains_that_it_started_for_itself() -> None:
    started = replace(TOKEN, subject="spiffe://acme.example/agent/front", sub_id=None)
    deny = Deny(actors=frozenset({started.subject}))
    with pytest.raises(Denied) as refusal:
        deny.check(Use(started, PLANNER, NO_NAMES))
    assert refusal.value.reason is Reason.POLICY_DENIED
    deny.check(Use(TOKEN, PLANNER, NO_NAMES))


def test_a_token_without_ids_is_not_met_by_a_list_of_ids() -> None:
    deny = Deny(subjects=frozenset({(IDP, "alice")}), jtis=frozenset({"x"}), txns=frozenset({"x"}))
    token = replace(TOKEN, jti=None, parent_jti=None, txn=None, sub_id=None)
    assert reason_of(deny.check, Use(token, PLANNER, NO_NAMES)) is None


MAP = {"sales": frozenset({"crm.read", "crm.write"}), "staff": frozenset({"docs.read"})}


@pytest.mark.parametrize(
    ("claims", "scope"),
    [
        pytest.param({"groups": ["sales", "staff"]}, {"crm.read", "crm.write", "docs.read"}, id="array"),
        pytest.param({"groups": "staff other"}, {"docs.read"}, id="string"),
        pytest.param({"groups": ["Sales", "sale", "sales "]}, set(), id="values match as a whole"),
        pytest.param({"groups": []}, set(), id="empty"),
        pytest.param({}, set(), id="no such claim"),
        pytest.param({"scope": "sales"}, set(), id="another claim"),
    ],
)
def test_a_login_token_is_worth_what_the_map_says(claims: dict[str, object], scope: set[str]) -> None:
    assert ScopeFrom(claim="groups", map=MAP).worth(claims) == scope


@pytest.mark.parametrize("value", [None, True, 1, {"sales": True}, ["sales", 1], [["sales"]]])
def test_a_claim_of_another_type_is_worth_a_refusal(value: object) -> None:
    with pytest.raises(Denied) as refusal:
        ScopeFrom(claim="groups", map=MAP).worth({"groups": value})
    assert refusal.value.reason is Reason.MALFORMED_TOKEN


def test_subjects_of_two_user_issuers_can_never_get_one_name() -> None:
    def entry(first: str, second: str) -> Entry:
        other = replace(USERS.trusted, issuer="https://b.example")
        return Entry(
            issuers={
                IDP: replace(USERS, subject_prefix=first),
                "https://b.example": replace(USERS, trusted=other, subject_prefix=second),
            },
            may_call=frozenset(),
        )

    assert entry("a|", "b|").issuers[IDP].mesh_subject("alice") == "a|alice"
    for first, second in (("", ""), ("", "b|"), ("a|", "a|"), ("a", "ab"), ("ab", "a")):
        with pytest.raises(ValueError, match="subject_prefix"):
            entry(first, second)


@pytest.mark.parametrize("life_s", [0, -1])
def test_an_entry_whose_delegations_have_no_life_is_refused(life_s: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Entry(issuers={}, may_call=frozenset(), delegation_life_s=life_s)
    with pytest.raises(ValueError, match="positive"):
        Entry(issuers={}, may_call=frozenset(), first_token_life_s=life_s)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param(
            {"issuers": {"https://other.example": STS_TRUST}}, "trusted issuer's name", id="issuer under another name"
        ),
        pytest.param(
            {"token_services": frozenset({"https://other.example"})},
            "must be a trusted issuer",
            id="STS that is not trusted",
        ),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(POLICY, **changes)


def test_a_user_issuer_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="user issuer's name"):
        Entry(issuers={"https://other.example": USERS}, may_call=frozenset())


def test_the_sts_is_one_of_the_trusted_issuers_or_unavailable() -> None:
    assert POLICY.sts(STS) is STS_TRUST
    with pytest.raises(Unavailable) as refusal:
        replace(POLICY, token_services=frozenset()).sts(STS)
    assert refusal.value.reason is Reason.STS_UNAVAILABLE


def test_registered_scopes_are_those_the_inbound_routes_need() -> None:
    assert POLICY.registered_scopes == {"docs.read"}
    assert SpiffeId(WRITER) == POLICY.workload
