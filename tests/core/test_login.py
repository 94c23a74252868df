"""A user's grant: proven like any issued token, except that nobody knows the user beforehand; one fact changed each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delegation_core.decide import accept_issued, decide_connect, decide_own
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.login import LoginPlan, accept_login, plan_login
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, plan_outbound
from delegation_core.policy import Deny, Entry, Policy
from delegation_core.profile import ActorForm
from delegation_core.reevaluate import outbound_again
from delegation_core.revocation import InForce, Kind
from delegation_core.revocations_kept import Revocation, Revocations
from delegation_core.spiffe_id import SpiffeId
from tests.core.test_connect import API
from tests.core.test_outside import MODEL
from tests.core.world import (
    CRM,
    FRONT,
    INBOUND_CLAIMS,
    NOW,
    POLICY,
    STS,
    STS_TRUST,
    TO_CRM,
    WRITER,
    Claims,
    delegation,
    login,
    signed,
    verification_key,
    without,
)

ROUTE = replace(TO_CRM, token="login")
MAIL = replace(TO_CRM, name="mail", host="mail.mesh", audience="spiffe://acme.example/tool/mail", token="login")
GRANTED: Claims = {
    "iss": STS,
    "sub": "alice",
    "aud": str(CRM),
    "scope": "crm.read",
    "client_id": "front-app",
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "granted-1",
    "sid": "session-1",
    "act": {"sub": str(WRITER)},
}


def allowing(**changes: Any) -> Policy:
    entry = Entry(issuers={}, may_call=frozenset({"crm", "mail"}))
    return replace(POLICY, **{"outbound": OutboundRoutes([ROUTE, MAIL]), "entry": entry, **changes})


LOGINS = allowing()


def accepted(claims: Claims = GRANTED, *, policy: Policy = LOGINS, key: str = "sts", now: int = NOW) -> Delegation:
    return accept_login(
        signed(claims), plan=plan_login("crm", policy=LOGINS), key=verification_key(key), policy=policy, now=now
    )


def reason_of(claims: Claims = GRANTED, **changes: Any) -> Reason:
    with pytest.raises(SidecarError) as caught:
        accepted(claims, **changes)
    return caught.value.reason


def test_a_login_is_planned_for_the_route_and_for_the_life_of_a_first_token() -> None:
    plan = plan_login("crm", policy=LOGINS)
    assert plan == LoginPlan(route=ROUTE, actor=WRITER, life_s=300)
    assert (plan.audience, plan.scope, plan.sts_issuer) == (str(CRM), frozenset({"crm.read", "crm.write"}), STS)


@pytest.mark.parametrize(
    ("name", "policy", "reason"),
    [
        ("crm", allowing(entry=None), Reason.NOT_AN_ENTRY),
        ("files", LOGINS, Reason.CALL_NOT_ALLOWED),
        ("crm", allowing(entry=Entry(issuers={}, may_call=frozenset({"mail"}))), Reason.CALL_NOT_ALLOWED),
        ("crm", allowing(outbound=OutboundRoutes([TO_CRM])), Reason.CALL_NOT_ALLOWED),
        ("crm", allowing(token_services=frozenset()), Reason.STS_UNAVAILABLE),
        ("crm", allowing(deny=Deny(actors=frozenset({WRITER}))), Reason.POLICY_DENIED),
    ],
)
def test_nobody_logs_in_where_no_login_opens_anything(name: str, policy: Policy, reason: Reason) -> None:
    with pytest.raises(SidecarError) as caught:
        plan_login(name, policy=policy)
    assert caught.value.reason is reason


def test_a_grant_opens_its_one_route_for_whoever_logged_in() -> None:
    for user in ("alice", "bob"):
        granted = accepted({**GRANTED, "sub": user})
        assert (granted.token.subject, granted.granted, granted.entry) == (user, True, False)
        assert (granted.may_call, granted.scope) == (frozenset({"crm"}), frozenset({"crm.read"}))
        assert granted.ends_at == NOW + 300


LIES: dict[str, tuple[Claims, Reason]] = {
    "no actor": (without(GRANTED, "act"), Reason.STS_NO_ACT),
    "another actor": ({**GRANTED, "act": {"sub": str(FRONT)}}, Reason.STS_ACTOR_MISMATCH),
    "an actor before us": (
        {**GRANTED, "act": {"sub": str(WRITER), "act": {"sub": str(FRONT)}}},
        Reason.STS_CHAIN_BROKEN,
    ),
    "the subject is ourselves": ({**GRANTED, "sub": str(WRITER)}, Reason.STS_SUBJECT_MISMATCH),
    "the subject is another workload": ({**GRANTED, "sub": str(FRONT)}, Reason.STS_SUBJECT_MISMATCH),
    "the subject is a workload in capitals": (
        {**GRANTED, "sub": "SPIFFE://acme.example/x"},
        Reason.STS_SUBJECT_MISMATCH,
    ),
    "the subject is the client": ({**GRANTED, "sub": "front-app"}, Reason.STS_SUBJECT_MISMATCH),
    "another audience": ({**GRANTED, "aud": "spiffe://acme.example/tool/mail"}, Reason.STS_AUDIENCE_MISMATCH),
    "two audiences": ({**GRANTED, "aud": [str(CRM), "https://else.example"]}, Reason.STS_AUDIENCE_MISMATCH),
    "a wider scope": ({**GRANTED, "scope": "crm.read docs.read"}, Reason.STS_SCOPE_WIDENED),
    "no scope": (without(GRANTED, "scope"), Reason.INSUFFICIENT_SCOPE),
    "a longer life": ({**GRANTED, "exp": NOW + 331}, Reason.STS_LIFETIME),
    "its end in the leeway": ({**GRANTED, "exp": NOW - 1}, Reason.STS_LIFETIME),
    "another issuer": ({**GRANTED, "iss": "https://else.example"}, Reason.STS_ISSUER),
    "bound to a certificate": ({**GRANTED, "cnf": {"x5t#S256": "x" * 43}}, Reason.STS_BAD_RESPONSE),
    "bound to a key": ({**GRANTED, "cnf": {"jkt": "x"}}, Reason.STS_BAD_RESPONSE),
}


@pytest.mark.parametrize(("claims", "reason"), LIES.values(), ids=LIES.keys())
def test_a_grant_with_one_fact_changed_is_refused(claims: Claims, reason: Reason) -> None:
    assert reason_of(claims) is reason


def test_a_grant_under_another_key_is_refused() -> None:
    assert reason_of(key="other") is Reason.STS_SIGNATURE


@pytest.mark.parametrize(
    "deny",
    [
        Deny(subjects=frozenset({(STS, "alice")})),
        Deny(subjects=frozenset({(None, "alice")})),
        Deny(jtis=frozenset({"granted-1"})),
        Deny(actors=frozenset({WRITER})),
    ],
)
def test_a_denied_user_gets_no_grant_and_an_earlier_one_opens_nothing_more(deny: Deny) -> None:
    granted, denying = accepted(), allowing(deny=deny)
    assert reason_of(policy=denying) is Reason.POLICY_DENIED
    with pytest.raises(Denied) as caught:
        plan_outbound(granted, ROUTE, policy=denying, now=NOW)
    assert caught.value.reason is Reason.POLICY_DENIED


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Kind.SUBJECT, "alice"), (Kind.LOGIN, "session-1"), (Kind.JTI, "granted-1"), (Kind.ACTOR, str(WRITER))],
)
def test_a_revocation_ends_a_grant_and_its_calls_in_flight(kind: Kind, value: str) -> None:
    plan = plan_outbound(accepted(), ROUTE, policy=LOGINS, now=NOW)
    permit = accept_issued(signed(GRANTED), plan=plan, key=verification_key(), policy=LOGINS, now=NOW)
    issuer = STS if kind in {Kind.SUBJECT, Kind.LOGIN} else None
    row = Revocation(id="r1", kind=kind, value=value, issuer=issuer, expires_at=NOW + 3000)
    listed = Revocations(seq=2, issued_at=NOW, ttl_s=300, in_force={"r1": row})
    revoking = allowing(deny=Deny(revoked=InForce(lists={STS: listed}, own=frozenset({STS}))))
    assert reason_of(policy=revoking) is Reason.REVOKED
    for judge in (
        lambda: plan_outbound(accepted(), ROUTE, policy=revoking, now=NOW),
        lambda: outbound_again(permit, keys=Keys(), policy=revoking, now=NOW),
    ):
        with pytest.raises(Denied) as caught:
            judge()
        assert caught.value.reason is Reason.REVOKED


def test_the_actor_may_be_the_client_by_a_table_and_nobody_else() -> None:
    table: dict[tuple[str | None, str], SpiffeId] = {(None, "front-app"): WRITER}
    profile = replace(STS_TRUST.profile, actor=ActorForm.CLIENT_TABLE, actor_table=table)
    by_client = allowing(issuers={STS: replace(STS_TRUST, profile=profile)})
    claims = without(GRANTED, "act")
    assert accepted(claims, policy=by_client).token.actor_id == WRITER
    assert reason_of(claims, policy=LOGINS) is Reason.STS_NO_ACT
    assert reason_of({**claims, "client_id": "other-app"}, policy=by_client) is Reason.STS_ACTOR_MISMATCH
    assert reason_of({**claims, "sub": "front-app"}, policy=by_client) is Reason.STS_SUBJECT_MISMATCH
    assert reason_of(GRANTED, policy=by_client) is Reason.STS_CHAIN_BROKEN  # both ways at once


def test_the_granted_token_itself_is_the_token_of_the_call() -> None:
    granted = accepted()
    plan = plan_outbound(granted, ROUTE, policy=LOGINS, now=NOW)
    assert plan.subject_token is None
    permit = accept_issued(signed(GRANTED), plan=plan, key=verification_key(), policy=LOGINS, now=NOW)
    assert (permit.token.jti, permit.token.subject) == ("granted-1", "alice")


def test_no_other_user_s_token_is_taken_for_it() -> None:
    plan = plan_outbound(accepted(), ROUTE, policy=LOGINS, now=NOW)
    with pytest.raises(Denied) as caught:
        accept_issued(signed({**GRANTED, "sub": "bob"}), plan=plan, key=verification_key(), policy=LOGINS, now=NOW)
    assert caught.value.reason is Reason.STS_SUBJECT_MISMATCH


CHANGES: dict[str, tuple[dict[str, Any], Reason]] = {
    "the route takes no logins now": ({"outbound": OutboundRoutes([TO_CRM, MAIL])}, Reason.CALL_NOT_ALLOWED),
    "the entry opens it no more": (
        {"entry": Entry(issuers={}, may_call=frozenset({"mail"}))},
        Reason.CALL_NOT_ALLOWED,
    ),
    "no entry": ({"entry": None}, Reason.NOT_AN_ENTRY),
    "a smaller scope": (
        {"outbound": OutboundRoutes([replace(ROUTE, scopes=frozenset({"crm.write"})), MAIL])},
        Reason.POLICY_DENIED,
    ),
    "another issuer": (
        {
            "outbound": OutboundRoutes([replace(ROUTE, issuer="https://else.example"), MAIL]),
            "issuers": {STS: STS_TRUST, "https://else.example": replace(STS_TRUST, issuer="https://else.example")},
            "token_services": frozenset({STS, "https://else.example"}),
        },
        Reason.ISSUER_NOT_FOR_ROUTE,
    ),
    "no token service": ({"token_services": frozenset()}, Reason.STS_UNAVAILABLE),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_a_grant_ends_with_the_settings_that_it_was_given_under(changes: dict[str, Any], reason: Reason) -> None:
    later = allowing(**changes)
    route = next(one for one in later.outbound.routes if one.name == "crm")
    with pytest.raises(SidecarError) as caught:
        plan_outbound(accepted(), route, policy=later, now=NOW)
    assert caught.value.reason is reason


class Keys:
    def find(self, _issuer: str, _kid: str | None) -> Any:
        return verification_key()

    def known(self, _issuer: str) -> bool:
        return True


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_a_call_in_flight_ends_with_its_grant(changes: dict[str, Any], reason: Reason) -> None:
    plan = plan_outbound(accepted(), ROUTE, policy=LOGINS, now=NOW)
    permit = accept_issued(signed(GRANTED), plan=plan, key=verification_key(), policy=LOGINS, now=NOW)
    outbound_again(permit, keys=Keys(), policy=LOGINS, now=NOW)
    with pytest.raises(SidecarError) as caught:
        outbound_again(permit, keys=Keys(), policy=allowing(**changes), now=NOW)
    assert caught.value.reason in (reason, Reason.TARGET_DENIED)


def test_a_grant_opens_no_other_route_and_no_other_authority_opens_its_route() -> None:
    granted = accepted()
    exchanging = allowing(outbound=OutboundRoutes([ROUTE, replace(MAIL, token="exchange")]))
    refused = [
        (granted, MAIL, LOGINS),
        (replace(granted, may_call=frozenset({"crm", "mail"})), replace(MAIL, token="exchange"), exchanging),
        (delegation(INBOUND_CLAIMS), ROUTE, LOGINS),
        (login(), ROUTE, LOGINS),
    ]
    for authority, route, policy in refused:
        with pytest.raises(Denied) as caught:
            plan_outbound(authority, route, policy=policy, now=NOW)
        assert caught.value.reason is Reason.CALL_NOT_ALLOWED


def test_a_grant_that_has_expired_opens_nothing() -> None:
    with pytest.raises(Denied) as caught:
        plan_outbound(accepted(), ROUTE, policy=LOGINS, now=NOW + 300)
    assert caught.value.reason is Reason.TOKEN_EXPIRED


def test_a_grant_opens_nothing_outside_the_mesh() -> None:
    for judge in (
        lambda: decide_own(accepted(), MODEL, method="POST", path="/v1/x", policy=LOGINS, now=NOW),
        lambda: decide_connect(accepted(), API, policy=LOGINS, now=NOW),
    ):
        with pytest.raises(Denied) as caught:
            judge()
        assert caught.value.reason is Reason.CALL_NOT_ALLOWED


def test_a_grant_does_not_open_another_kind_of_route_that_takes_its_name() -> None:
    model, tunnel = replace(MODEL, name="crm"), replace(API, name="crm")
    for judge in (
        lambda: decide_own(
            accepted(), model, method="POST", path="/v1/x", policy=allowing(outbound=OutboundRoutes([model])), now=NOW
        ),
        lambda: decide_connect(accepted(), tunnel, policy=allowing(outbound=OutboundRoutes([tunnel])), now=NOW),
    ):
        with pytest.raises(Denied) as caught:
            judge()
        assert caught.value.reason is Reason.CALL_NOT_ALLOWED


def test_a_spiffe_id_of_an_actor_is_compared_whole() -> None:
    assert reason_of({**GRANTED, "act": {"sub": f"{SpiffeId(WRITER)}2"}}) is Reason.STS_ACTOR_MISMATCH
