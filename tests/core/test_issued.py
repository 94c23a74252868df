"""Every property that an STS must keep or add, changed one at a time (invariant I4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.crossing import Crossing
from delegation_core.decide import accept_issued
from delegation_core.errors import Denied, Reason
from delegation_core.issued import prove_issued, sts_error
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Plan, plan_outbound, plan_own
from tests.core.world import (
    CRM,
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
    STS,
    TO_CRM,
    WRITER,
    Claims,
    delegation,
    login,
    plan,
    reason_of,
    signed,
    verification_key,
    verified,
    without,
)

INBOUND_ACT = INBOUND_CLAIMS["act"]


def act(prior: object = INBOUND_ACT, **members: object) -> Claims:
    return ISSUED_CLAIMS | {"act": {"sub": str(WRITER), "act": prior} | members}


def issued(**claims: Any) -> Claims:
    return ISSUED_CLAIMS | claims


def entry(**claims: Any) -> Claims:
    return ENTRY_CLAIMS | claims


LOGGED_IN = {"auth_time": NOW - 60, "acr": "phr"}
DELEGATED = plan()
AT_ENTRY = plan(login())
OF_LOGIN = plan(delegation(INBOUND_CLAIMS | LOGGED_IN))
LOGIN_AT_ENTRY = plan(login(LOGIN_CLAIMS | LOGGED_IN))
OF_SESSION = plan(delegation(INBOUND_CLAIMS | {"sid": "session-1"}))
SESSION_AT_ENTRY = plan(login(LOGIN_CLAIMS | {"sid": "session-1"}))
FIRST_HOP = plan(delegation(without(INBOUND_CLAIMS, "act", "txn", "jti", "parent_jti", "sub_id")))


PARTNERS = "https://sts.partner.example"
_ROUTE = replace(
    TO_CRM,
    crossings={
        PARTNERS: Crossing(issuer=PARTNERS, subject_prefix="partner:", scopes={"docs.read": frozenset({"crm.read"})})
    },
)
CROSSED = plan_outbound(delegation(INBOUND_CLAIMS | {"iss": PARTNERS}), _ROUTE, policy=POLICY, now=NOW)
CROSSED_BARE = plan_outbound(
    delegation(without(INBOUND_CLAIMS, "sub_id", "txn") | {"iss": PARTNERS}), _ROUTE, policy=POLICY, now=NOW
)
PAIR = {"format": "iss_sub", "iss": PARTNERS, "sub": "alice"}


@pytest.mark.parametrize(
    ("planned", "claims"),
    [
        pytest.param(DELEGATED, ISSUED_CLAIMS, id="as planned"),
        pytest.param(CROSSED, issued(sub="partner:alice"), id="crossing: prefix, and sub_id kept"),
        pytest.param(CROSSED_BARE, issued(sub="partner:alice", sub_id=PAIR), id="crossing: sub_id made, and txn begun"),
        pytest.param(DELEGATED, issued(scope=""), id="narrower than planned"),
        pytest.param(DELEGATED, issued(exp=NOW + 1), id="shorter than planned"),
        pytest.param(
            plan(delegation(INBOUND_CLAIMS | {"exp": NOW + 290.5})), issued(exp=NOW + 290.5), id="to the same fraction"
        ),
        pytest.param(DELEGATED, without(ISSUED_CLAIMS, "parent_jti"), id="no parent_jti"),
        pytest.param(DELEGATED, issued(ancestor_jtis=["token-1"]), id="every token before its parent"),
        pytest.param(DELEGATED, without(ISSUED_CLAIMS, "jti"), id="no jti, where the issuer's profile allows it"),
        pytest.param(DELEGATED, act(iss=STS, client_id="writer"), id="more about us in act"),
        pytest.param(AT_ENTRY, ENTRY_CLAIMS, id="at an entry"),
        pytest.param(OF_LOGIN, ISSUED_CLAIMS | LOGGED_IN, id="the login as it came in"),
        pytest.param(LOGIN_AT_ENTRY, ENTRY_CLAIMS | LOGGED_IN, id="the login, told from the first token on"),
        pytest.param(LOGIN_AT_ENTRY, ENTRY_CLAIMS, id="an entry's token service that never tells of the login"),
        pytest.param(OF_SESSION, issued(sid="session-1"), id="the login's session as it came in"),
        pytest.param(SESSION_AT_ENTRY, entry(sid="session-1"), id="the login's session, from the first token on"),
        pytest.param(SESSION_AT_ENTRY, ENTRY_CLAIMS, id="an entry's token service that omits the session"),
        pytest.param(
            plan(login(LOGIN_CLAIMS | {"txn": "x"})), ENTRY_CLAIMS, id="the chain's txn begins at the STS, not at login"
        ),
        pytest.param(
            FIRST_HOP,
            without(ISSUED_CLAIMS, "parent_jti", "sub_id") | {"act": {"sub": str(WRITER)}},
            id="nothing came in to be kept",
        ),
        pytest.param(
            FIRST_HOP,
            without(ISSUED_CLAIMS, "parent_jti")
            | {"act": {"sub": str(WRITER)}, "sub_id": {"format": "iss_sub", "iss": STS, "sub": "alice"}},
            id="the pair that came in, said for the first time",
        ),
        pytest.param(
            FIRST_HOP,
            without(ISSUED_CLAIMS, "parent_jti", "sub_id", "jti") | {"act": {"sub": str(WRITER)}},
            id="no jti on either side",
        ),
    ],
)
def test_what_was_planned_is_proven(planned: Plan, claims: Claims) -> None:
    assert reason_of(prove_issued, verified(claims), planned, now=NOW) is None


# A login at the token service's own issuer: nothing renames its subject.
OWN_LOGIN = replace(AT_ENTRY, sts_issuer=IDP, expected_subject="alice")
OWN_PAIR = {"format": "iss_sub", "iss": IDP, "sub": "alice"}


def test_a_login_at_the_token_service_itself_keeps_its_pair() -> None:
    same = without(ENTRY_CLAIMS, "sub_id") | {"sub": "alice"}
    prove_issued(verified(same), OWN_LOGIN, now=NOW)
    prove_issued(verified(same | {"sub_id": OWN_PAIR}), OWN_LOGIN, now=NOW)
    for lie in ({"sub": "bob"}, {"sub_id": OWN_PAIR | {"sub": "bob"}}):
        with pytest.raises(Denied) as caught:
            prove_issued(verified(same | lie), OWN_LOGIN, now=NOW)
        assert caught.value.reason is Reason.STS_SUBJECT_MISMATCH
    with pytest.raises(Denied) as caught:  # another issuer's login must be named
        prove_issued(verified(same), replace(OWN_LOGIN, sts_issuer=STS), now=NOW)
    assert caught.value.reason is Reason.STS_SUBJECT_MISMATCH


def test_a_login_keeps_its_name_where_the_profile_says_whose_names_these_are() -> None:
    kept = replace(AT_ENTRY, kept_subjects_of=IDP, expected_subject="alice")
    same = without(ENTRY_CLAIMS, "sub_id") | {"sub": "alice"}
    prove_issued(verified(same), kept, now=NOW)
    for planned, lie in (
        (replace(kept, kept_subjects_of=None), {}),
        (replace(kept, kept_subjects_of=PARTNERS), {}),
        (kept, {"sub": "bob"}),
        (kept, {"sub_id": OWN_PAIR | {"sub": "bob"}}),
    ):
        with pytest.raises(Denied) as caught:
            prove_issued(verified(same | lie), planned, now=NOW)
        assert caught.value.reason is Reason.STS_SUBJECT_MISMATCH


OTHER_ISS = INBOUND_CLAIMS["sub_id"] | {"iss": STS}


@pytest.mark.parametrize(
    ("planned", "claims", "reason"),
    [
        pytest.param(CROSSED, ISSUED_CLAIMS, Reason.STS_SUBJECT_MISMATCH, id="crossing: no prefix"),
        pytest.param(CROSSED, issued(sub="other:alice"), Reason.STS_SUBJECT_MISMATCH, id="crossing: another prefix"),
        pytest.param(
            CROSSED,
            without(issued(sub="partner:alice"), "sub_id"),
            Reason.STS_SUBJECT_MISMATCH,
            id="crossing: sub_id dropped",
        ),
        pytest.param(
            CROSSED,
            issued(sub="partner:alice", sub_id=PAIR),
            Reason.STS_SUBJECT_MISMATCH,
            id="crossing: sub_id of the token itself although one came in",
        ),
        pytest.param(
            CROSSED_BARE,
            without(issued(sub="partner:alice"), "sub_id"),
            Reason.STS_SUBJECT_MISMATCH,
            id="crossing: no sub_id made",
        ),
        pytest.param(
            CROSSED_BARE,
            issued(sub="partner:alice", sub_id=PAIR | {"sub": "bob"}),
            Reason.STS_SUBJECT_MISMATCH,
            id="crossing: sub_id of another",
        ),
        pytest.param(
            CROSSED_BARE,
            issued(sub="partner:alice", sub_id=PAIR | {"iss": STS}),
            Reason.STS_SUBJECT_MISMATCH,
            id="crossing: sub_id of another issuer",
        ),
        pytest.param(
            CROSSED, issued(sub="partner:alice", txn="txn-2"), Reason.STS_CHAIN_BROKEN, id="crossing: another txn"
        ),
        pytest.param(
            CROSSED, without(issued(sub="partner:alice"), "txn"), Reason.STS_CHAIN_BROKEN, id="crossing: txn dropped"
        ),
        pytest.param(
            CROSSED,
            issued(sub="partner:alice", act={"sub": str(WRITER)}),
            Reason.STS_CHAIN_BROKEN,
            id="crossing: history dropped",
        ),
        pytest.param(
            CROSSED,
            issued(sub="partner:alice", act={"sub": str(WRITER), "act": INBOUND_ACT | {"iss": PARTNERS}}),
            Reason.STS_CHAIN_BROKEN,
            id="crossing: history rewritten",
        ),
        pytest.param(
            CROSSED,
            issued(sub="partner:alice", scope="docs.read"),
            Reason.STS_SCOPE_WIDENED,
            id="crossing: the scope from before the map",
        ),
        pytest.param(
            CROSSED, issued(sub="partner:alice", exp=NOW + 291), Reason.STS_LIFETIME, id="crossing: a longer life"
        ),
        pytest.param(DELEGATED, without(ISSUED_CLAIMS, "act"), Reason.STS_NO_ACT, id="impersonation"),
        pytest.param(AT_ENTRY, without(ENTRY_CLAIMS, "act"), Reason.STS_NO_ACT, id="impersonation at an entry"),
        pytest.param(DELEGATED, act(sub=str(PLANNER)), Reason.STS_ACTOR_MISMATCH, id="the caller acts"),
        pytest.param(DELEGATED, issued(act=INBOUND_ACT), Reason.STS_ACTOR_MISMATCH, id="act as it came in"),
        pytest.param(DELEGATED, act(sub=f"{WRITER}2"), Reason.STS_ACTOR_MISMATCH, id="a longer name"),
        *(
            pytest.param(planned, claims, Reason.STS_CHAIN_BROKEN, id=f"{where}: {what}")
            for where, planned, lawful in (
                ("chain", OF_LOGIN, ISSUED_CLAIMS | LOGGED_IN),
                ("entry", LOGIN_AT_ENTRY, ENTRY_CLAIMS | LOGGED_IN),
            )
            for what, claims in {
                "a younger login": lawful | {"auth_time": NOW},
                "the same time as another number": lawful | {"auth_time": float(NOW - 60)},
                "a stronger login": lawful | {"acr": "phrh"},
            }.items()
        ),
        pytest.param(OF_LOGIN, issued(acr="phr"), Reason.STS_CHAIN_BROKEN, id="the login's time dropped"),
        pytest.param(OF_LOGIN, issued(auth_time=NOW - 60), Reason.STS_CHAIN_BROKEN, id="the login's strength dropped"),
        pytest.param(DELEGATED, issued(auth_time=NOW), Reason.STS_CHAIN_BROKEN, id="a login's time from nowhere"),
        pytest.param(AT_ENTRY, entry(acr="phr"), Reason.STS_CHAIN_BROKEN, id="entry: a strength from nowhere"),
        pytest.param(DELEGATED, issued(sub="bob"), Reason.STS_SUBJECT_MISMATCH, id="another subject"),
        pytest.param(DELEGATED, issued(sub="Alice"), Reason.STS_SUBJECT_MISMATCH, id="another case"),
        pytest.param(DELEGATED, issued(sub=str(WRITER)), Reason.STS_SUBJECT_MISMATCH, id="we are the subject"),
        pytest.param(
            DELEGATED, without(ISSUED_CLAIMS, "sub_id"), Reason.STS_SUBJECT_MISMATCH, id="the login pair dropped"
        ),
        pytest.param(DELEGATED, issued(sub_id=OTHER_ISS), Reason.STS_SUBJECT_MISMATCH, id="another login issuer"),
        pytest.param(
            FIRST_HOP,
            without(ISSUED_CLAIMS, "parent_jti") | {"act": {"sub": str(WRITER)}},
            Reason.STS_SUBJECT_MISMATCH,
            id="a login pair from nowhere",
        ),
        pytest.param(AT_ENTRY, entry(sub="alice"), Reason.STS_SUBJECT_MISMATCH, id="entry: no prefix"),
        pytest.param(AT_ENTRY, entry(sub="idp2|alice"), Reason.STS_SUBJECT_MISMATCH, id="entry: another prefix"),
        pytest.param(AT_ENTRY, without(ENTRY_CLAIMS, "sub_id"), Reason.STS_SUBJECT_MISMATCH, id="entry: no login pair"),
        pytest.param(AT_ENTRY, entry(sub_id=OTHER_ISS), Reason.STS_SUBJECT_MISMATCH, id="entry: another issuer's pair"),
        pytest.param(
            AT_ENTRY,
            entry(sub_id={"format": "iss_sub", "iss": IDP, "sub": "bob"}),
            Reason.STS_SUBJECT_MISMATCH,
            id="entry: another subject's pair",
        ),
        pytest.param(DELEGATED, issued(act={"sub": str(WRITER)}), Reason.STS_CHAIN_BROKEN, id="history dropped"),
        pytest.param(DELEGATED, act({"sub": str(PLANNER)}), Reason.STS_CHAIN_BROKEN, id="history cut"),
        pytest.param(
            DELEGATED,
            act({"sub": str(FRONT), "act": {"sub": str(PLANNER)}}),
            Reason.STS_CHAIN_BROKEN,
            id="history reordered",
        ),
        pytest.param(
            DELEGATED, act({"sub": str(WRITER), "act": INBOUND_ACT}), Reason.STS_CHAIN_BROKEN, id="history longer"
        ),
        pytest.param(
            DELEGATED, act(INBOUND_ACT | {"iss": STS}), Reason.STS_CHAIN_BROKEN, id="history with a member more"
        ),
        pytest.param(
            DELEGATED,
            act({"sub": str(PLANNER), "act": {"sub": f"{FRONT}2"}}),
            Reason.STS_CHAIN_BROKEN,
            id="first actor renamed",
        ),
        pytest.param(AT_ENTRY, ENTRY_CLAIMS | {"act": act()["act"]}, Reason.STS_CHAIN_BROKEN, id="entry: a history"),
        pytest.param(DELEGATED, issued(txn="txn-2"), Reason.STS_CHAIN_BROKEN, id="another txn"),
        pytest.param(DELEGATED, without(ISSUED_CLAIMS, "txn"), Reason.STS_CHAIN_BROKEN, id="txn dropped"),
        pytest.param(OF_SESSION, issued(sid="session-2"), Reason.STS_CHAIN_BROKEN, id="another login's session"),
        pytest.param(OF_SESSION, ISSUED_CLAIMS, Reason.STS_CHAIN_BROKEN, id="the session dropped"),
        pytest.param(DELEGATED, issued(sid="session-1"), Reason.STS_CHAIN_BROKEN, id="a session made up"),
        pytest.param(
            SESSION_AT_ENTRY, entry(sid="session-2"), Reason.STS_CHAIN_BROKEN, id="another login's session, at an entry"
        ),
        pytest.param(DELEGATED, issued(parent_jti="token-1"), Reason.STS_CHAIN_BROKEN, id="the grandparent's jti"),
        pytest.param(
            DELEGATED, issued(ancestor_jtis=["x"]), Reason.STS_CHAIN_BROKEN, id="another token before its parent"
        ),
        pytest.param(
            DELEGATED,
            issued(ancestor_jtis=["token-0", "token-1"]),
            Reason.STS_CHAIN_BROKEN,
            id="one too many before it",
        ),
        pytest.param(
            FIRST_HOP,
            without(ISSUED_CLAIMS, "sub_id") | {"act": {"sub": str(WRITER)}},
            Reason.STS_CHAIN_BROKEN,
            id="a parent that has no jti",
        ),
        pytest.param(DELEGATED, issued(jti="token-2"), Reason.STS_BAD_RESPONSE, id="the subject token's jti"),
        pytest.param(DELEGATED, issued(aud=str(WRITER)), Reason.STS_AUDIENCE_MISMATCH, id="for us"),
        pytest.param(DELEGATED, issued(aud=f"{CRM}/"), Reason.STS_AUDIENCE_MISMATCH, id="nearly the target"),
        pytest.param(DELEGATED, issued(scope="crm.read docs.read"), Reason.STS_SCOPE_WIDENED, id="all that came in"),
        pytest.param(DELEGATED, issued(scope="crm.write"), Reason.STS_SCOPE_WIDENED, id="another scope"),
        pytest.param(DELEGATED, issued(exp=NOW + 291), Reason.STS_LIFETIME, id="a second longer than what came in"),
        pytest.param(DELEGATED, issued(exp=NOW + 290.5), Reason.STS_LIFETIME, id="half a second longer"),
        pytest.param(DELEGATED, issued(exp=NOW), Reason.STS_LIFETIME, id="dead on arrival"),
        pytest.param(AT_ENTRY, entry(exp=NOW + 541), Reason.STS_LIFETIME, id="entry: longer than the login"),
        pytest.param(AT_ENTRY, entry(exp=NOW + 540.5), Reason.STS_LIFETIME, id="entry: half a second longer"),
    ],
)
def test_what_the_sts_changed_is_refused(planned: Plan, claims: Claims, reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        prove_issued(verified(claims), planned, now=NOW)
    assert refusal.value.reason is reason


def test_another_subject_is_refused_at_an_entry_with_the_settings_to_compare() -> None:
    with pytest.raises(Denied) as at_entry:
        prove_issued(verified(entry(sub="somebody")), AT_ENTRY, now=NOW)
    with pytest.raises(Denied) as later:
        prove_issued(verified(issued(sub="somebody")), DELEGATED, now=NOW)
    compare = "compare subject_prefix and subject_claim with the token service's"
    assert at_entry.value.detail == f"sub is not the user of the call; {compare}"
    assert later.value.detail == "sub is not the user of the call"


@pytest.mark.parametrize(
    ("came_in", "came_back"),
    [
        pytest.param(1, True, id="one and true"),
        pytest.param(0, False, id="zero and false"),
        pytest.param(1, 1.0, id="one and one point zero"),
        pytest.param([1], [True], id="inside an array"),
        pytest.param([1], [1, 2], id="a longer array"),
        pytest.param([1, 2], [2, 1], id="another order"),
        pytest.param({"a": 1}, {"a": True}, id="inside an object"),
        pytest.param({"a": 1}, {"b": 1}, id="another name"),
        pytest.param({"a": 1}, {}, id="a member less"),
        pytest.param(None, False, id="null and false"),
        pytest.param("1", 1, id="string and number"),
        pytest.param([], {}, id="array and object"),
        pytest.param({}, [], id="object and array"),
    ],
)
def test_the_history_is_compared_by_value_and_type(came_in: object, came_back: object) -> None:
    planned = plan(delegation(INBOUND_CLAIMS | {"act": {"sub": str(PLANNER), "x": came_in}}))
    prove_issued(verified(act({"sub": str(PLANNER), "x": came_in})), planned, now=NOW)
    with pytest.raises(Denied) as refusal:
        prove_issued(verified(act({"sub": str(PLANNER), "x": came_back})), planned, now=NOW)
    assert refusal.value.reason is Reason.STS_CHAIN_BROKEN


def test_an_actor_that_cannot_be_mapped_is_not_us() -> None:
    with pytest.raises(Denied) as refusal:
        prove_issued(replace(verified(ISSUED_CLAIMS), actor_id=None), DELEGATED, now=NOW)
    assert refusal.value.reason is Reason.STS_ACTOR_MISMATCH


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.BAD_SIGNATURE, Reason.STS_SIGNATURE),
        (Reason.ALG_NOT_ALLOWED, Reason.STS_SIGNATURE),
        (Reason.UNKNOWN_KEY, Reason.STS_SIGNATURE),
        (Reason.WRONG_ISSUER, Reason.STS_ISSUER),
        (Reason.TOKEN_TYPE, Reason.STS_TOKEN_TYPE),
        (Reason.WRONG_AUDIENCE, Reason.STS_AUDIENCE_MISMATCH),
        (Reason.TOKEN_EXPIRED, Reason.STS_LIFETIME),
        (Reason.TOKEN_NOT_YET_VALID, Reason.STS_LIFETIME),
        (Reason.ACT_MISSING, Reason.STS_NO_ACT),
        (Reason.ACT_TOO_DEEP, Reason.STS_CHAIN_BROKEN),
        (Reason.MALFORMED_TOKEN, Reason.STS_BAD_RESPONSE),
        (Reason.DUPLICATE_CLAIM, Reason.STS_BAD_RESPONSE),
        (Reason.TOKEN_TOO_LARGE, Reason.STS_BAD_RESPONSE),
        (Reason.CNF_MISMATCH, Reason.STS_BAD_RESPONSE),
    ],
)
def test_a_fault_of_the_issued_token_is_the_stss_and_not_the_callers(reason: Reason, said: Reason) -> None:
    assert sts_error(Denied(reason)).reason is said


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        pytest.param(None, Reason.STS_NO_ACT, id="unreadable"),
        pytest.param({"act": "spiffe://a/b"}, Reason.STS_NO_ACT, id="a string"),
        pytest.param({"act": {}}, Reason.STS_NO_ACT, id="nobody"),
        pytest.param({"act": {"sub": True}}, Reason.STS_NO_ACT, id="a sub of another type"),
        pytest.param({"act": {"sub": "a", "act": "b"}}, Reason.STS_CHAIN_BROKEN, id="a history that is none"),
    ],
)
def test_a_malformed_actor_is_told_from_a_malformed_history(claims: Claims | None, said: Reason) -> None:
    assert sts_error(Denied(Reason.ACT_MALFORMED), claims).reason is said


TO_SELF = replace(TO_CRM, token="self")
OWN = replace(POLICY, outbound=OutboundRoutes([TO_SELF]), own_may_call=frozenset({"crm"}))
FOR_ITSELF = plan_own(TO_SELF, policy=OWN, now=NOW)


def accept_own(changes: Claims) -> IssuedPermit:
    return accept_issued(signed(OWN_CLAIMS | changes), plan=FOR_ITSELF, key=verification_key(), policy=OWN, now=NOW)


def test_a_token_of_the_workload_s_own_is_proven() -> None:
    assert accept_own({}).token.subject == OWN_CLAIMS["sub"]
    assert reason_of(prove_issued, verified(OWN_CLAIMS), FOR_ITSELF, now=NOW) is None
    assert reason_of(prove_issued, verified(OWN_CLAIMS | {"exp": NOW + 3600}), FOR_ITSELF, now=NOW) is None


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"sub": str(PLANNER)}, Reason.STS_SUBJECT_MISMATCH, id="another workload's"),
        pytest.param({"sub": "alice"}, Reason.STS_SUBJECT_MISMATCH, id="a user's"),
        pytest.param({"client_id": str(PLANNER)}, Reason.STS_SUBJECT_MISMATCH, id="another client's"),
        pytest.param({"client_id": None}, Reason.STS_SUBJECT_MISMATCH, id="no client"),
        pytest.param({"act": {"sub": str(WRITER)}}, Reason.STS_CHAIN_BROKEN, id="we act for ourselves"),
        pytest.param({"act": {"sub": str(PLANNER)}}, Reason.STS_CHAIN_BROKEN, id="somebody acts for us"),
        pytest.param({"may_act": {"sub": str(CRM)}}, Reason.STS_CHAIN_BROKEN, id="somebody may act for us"),
        pytest.param({"sub_id": INBOUND_CLAIMS["sub_id"]}, Reason.STS_SUBJECT_MISMATCH, id="a login behind it"),
        pytest.param({"sid": "s1"}, Reason.STS_SUBJECT_MISMATCH, id="a session"),
        pytest.param({"acr": "phr"}, Reason.STS_SUBJECT_MISMATCH, id="a user's authentication"),
        pytest.param({"parent_jti": "token-2"}, Reason.STS_SUBJECT_MISMATCH, id="a token before it"),
        pytest.param({"aud": str(PLANNER)}, Reason.STS_AUDIENCE_MISMATCH, id="another target"),
        pytest.param({"scope": "crm.read docs.read"}, Reason.STS_SCOPE_WIDENED, id="wider"),
        pytest.param({"exp": NOW + 3631}, Reason.STS_LIFETIME, id="longer than an hour"),
        pytest.param({"exp": NOW}, Reason.STS_LIFETIME, id="over"),
    ],
)
def test_a_token_of_the_workload_s_own_with_one_fact_changed_is_refused(claims: Claims, reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        prove_issued(verified(OWN_CLAIMS | claims), FOR_ITSELF, now=NOW)
    assert refusal.value.reason is reason
    with pytest.raises(Denied):  # nor with its signature, where a cached token keeps few of its claims
        accept_own(claims)
    with pytest.raises(Denied):  # nor does one pass for the other
        prove_issued(verified(OWN_CLAIMS), DELEGATED, now=NOW)


def test_a_delegated_token_is_none_of_the_workload_s_own() -> None:
    with pytest.raises(Denied) as refusal:
        prove_issued(verified(ISSUED_CLAIMS), FOR_ITSELF, now=NOW)
    assert refusal.value.reason is Reason.STS_CHAIN_BROKEN
