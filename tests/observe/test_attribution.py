from __future__ import annotations

from typing import Any

import pytest

from delegation_core.bearer import fingerprint_of
from delegation_core.decide import accept_issued, decide_inbound
from delegation_core.records.record import MAX_ITEMS, RecordFields
from delegation_core.records.record_text import INSTEAD
from sidecar.observe.attribution import claims_of, facts_of, facts_of_issued, facts_of_token
from tests.core.world import (
    CRM,
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
    WRITER,
    delegation,
    plan,
    signed,
    verification_key,
    verified,
)

FACTS = {
    "verified": True,
    "subject": "alice",
    "subject_iss": STS,
    "actor": PLANNER,
    "chain": (PLANNER, FRONT),
    "chain_depth": 2,
    "client_id": PLANNER,
    "audience": WRITER,
    "scope": ("crm.read", "docs.read"),
    "jti_in": "token-2",
    "parent_jti": "token-1",
    "txn": "txn-1",
}


def without_fingerprint(said: RecordFields) -> dict[str, object]:
    assert len(said.pop("fp") or "") == 32
    return dict(said)


def issued(**changed: Any) -> dict[str, object]:
    claims = {name: value for name, value in (ISSUED_CLAIMS | changed).items() if value is not None}
    permit = accept_issued(signed(claims), plan=plan(), key=verification_key(), policy=POLICY, now=NOW)
    return without_fingerprint(facts_of_issued(permit))


def test_a_token_says_whose_it_is_and_nothing_of_a_decision() -> None:
    assert without_fingerprint(facts_of_token(verified(INBOUND_CLAIMS))) == FACTS


def test_a_permit_says_the_same_and_that_it_is_one() -> None:
    bearer = signed(INBOUND_CLAIMS)
    permit = decide_inbound(bearer, peer=PLANNER, route=SEARCH, key=verification_key(), policy=POLICY, now=NOW)
    assert without_fingerprint(facts_of(permit)) == FACTS | {
        "decision": "allow",
        "reason": "ok",
        "peer": PLANNER,
        "route": "search",
        "scope_needed": ("docs.read",),
    }


def test_an_issued_permit_names_both_tokens() -> None:
    said = issued()
    assert said == FACTS | {
        "decision": "allow",
        "reason": "ok",
        "peer": CRM,
        "route": "crm",
        "actor": WRITER,
        "chain": (WRITER, PLANNER, FRONT),
        "chain_depth": 3,
        "client_id": WRITER,
        "audience": CRM,
        "scope": ("crm.read",),
        "scope_needed": ("crm.read",),
        "jti_out": "token-3",
        "parent_jti": "token-2",
    }


def test_an_issued_token_without_parent_leads_back_to_the_one_it_came_from() -> None:
    assert issued(parent_jti=None)["parent_jti"] == "token-2"


def test_a_login_has_no_chain_and_leaves_none_that_was_claimed() -> None:
    said = facts_of_token(verified(LOGIN_CLAIMS))
    assert said["subject_iss"] == IDP
    assert [said[name] for name in ("actor", "chain", "chain_depth")] == [None] * 3


def test_what_did_not_verify_is_marked() -> None:
    said = claims_of(signed(INBOUND_CLAIMS))
    assert (said["verified"], said["subject"], said["chain"]) == (False, "alice", (PLANNER, FRONT))
    assert "decision" not in said


@pytest.mark.parametrize(
    ("name", "claim", "value"),
    [
        ("subject", "sub", 7),
        ("audience", "aud", ["a"]),
        ("jti_in", "jti", True),
        ("scope", "scope", {"a": 1}),
        ("chain", "act", "me"),
        ("txn", "txn", None),
    ],
)
def test_a_claim_of_an_odd_type_is_left_out_while_it_is_not_verified(name: str, claim: str, value: object) -> None:
    said: dict[str, object] = {**claims_of(signed({**INBOUND_CLAIMS, claim: value}))}
    assert said.pop(name) is None
    assert said["subject_iss"] == STS


def test_a_long_scope_is_not_taken_apart_further_than_it_is_told() -> None:
    said = claims_of(signed({**INBOUND_CLAIMS, "scope": " ".join("s" * 2000)}))
    assert len(said["scope"] or ()) == MAX_ITEMS + 1


@pytest.mark.parametrize("claim", ["sub", "jti", "txn"])
def test_a_claim_that_is_itself_a_token_is_masked_in_what_was_allowed(claim: str) -> None:
    inner = signed({"iss": "x", "sub": "inner"}).raw
    permit = decide_inbound(
        signed(INBOUND_CLAIMS | {claim: inner}),
        peer=PLANNER,
        route=SEARCH,
        key=verification_key(),
        policy=POLICY,
        now=NOW,
    )
    planned = plan(delegation(INBOUND_CLAIMS | {claim: inner}))
    issued_claims = ISSUED_CLAIMS | ({"parent_jti": inner} if claim == "jti" else {claim: inner})
    onwards = accept_issued(signed(issued_claims), plan=planned, key=verification_key(), policy=POLICY, now=NOW)
    for facts in (facts_of(permit), facts_of_issued(onwards)):
        assert inner not in str(facts)
        assert f"{INSTEAD}{fingerprint_of(inner)}" in str(facts)
