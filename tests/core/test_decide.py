from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.act import ActChain, Actor
from delegation_core.claims import CLIENT_CLAIMS
from delegation_core.decide import (
    accept_issued,
    check_again,
    decide_entry,
    decide_inbound,
    decide_verified,
    delegate,
    trusted_issuer,
    user_issuer,
)
from delegation_core.errors import Denied, Reason
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.plan import opened_routes
from delegation_core.policy import Deny, Policy
from delegation_core.profile_presets import PRESETS
from delegation_core.route import InboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import TrustedIssuer
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
    PLANNER,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    USERS,
    WRITER,
    Claims,
    login,
    plan,
    signed,
    verification_key,
    verified,
    without,
)

PARTNER = SpiffeId("spiffe://partner.example/agent/planner")
SELF_CLAIMS = without(INBOUND_CLAIMS, "act", "sub_id", "parent_jti") | {"sub": str(PLANNER)}


class Call:
    """A lawful inbound call of which a test changes one fact."""

    def __init__(self, claims: Claims = INBOUND_CLAIMS, **token: Any) -> None:
        self.token = verified(claims, **token)
        self.peer, self.route, self.policy, self.now = PLANNER, SEARCH, POLICY, NOW
        self.certificate: str | None = None

    def by(self, peer: SpiffeId) -> Call:
        self.peer = peer
        return self

    def on(self, **route: Any) -> Call:
        self.route = replace(self.route, **route)
        return self

    def under(self, **policy: Any) -> Call:
        self.policy = replace(self.policy, **policy)
        return self

    def trusting(self, **issuer: Any) -> Call:
        return self.under(issuers={STS: replace(STS_TRUST, **issuer)})

    def at(self, now: int) -> Call:
        self.now = now
        return self

    def showing(self, certificate: str) -> Call:
        self.certificate = certificate
        return self

    def decide(self) -> Permit:
        return decide_verified(
            self.token,
            peer=self.peer,
            route=self.route,
            policy=self.policy,
            now=self.now,
            peer_certificate_sha256=self.certificate,
        )


def replaced(call: Call, issuers: dict[str, TrustedIssuer]) -> Call:
    """Return the same call under these issuers."""
    again = copy(call)
    return again.under(issuers=issuers)


def claims(**changes: Any) -> Claims:
    return INBOUND_CLAIMS | changes


def bound() -> Call:
    return Call(certificate_thumbprint="q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s")


@pytest.mark.parametrize(
    ("call", "mode"),
    [
        pytest.param(Call(), "delegated", id="delegated"),
        pytest.param(Call().at(INBOUND_CLAIMS["exp"] + 29), "delegated", id="within the leeway"),
        pytest.param(Call(claims(scope="docs.read")), "delegated", id="just the scope that is needed"),
        pytest.param(Call(claims(act={"sub": str(PLANNER)})), "delegated", id="no earlier actors"),
        pytest.param(Call().on(scopes=frozenset()), "delegated", id="a route that needs no scope"),
        pytest.param(Call(SELF_CLAIMS).on(allow_self=True), "self", id="an agent for itself"),
        pytest.param(Call(claims(sub=str(PLANNER))).on(allow_self=True), "self", id="subject and actor are the same"),
        pytest.param(bound().showing("ab" * 32), "delegated", id="bound to the certificate that is shown"),
        pytest.param(
            Call().on(protocol="mcp", operation="tools/call:a", subjects=frozenset({"alice"})),
            "delegated",
            id="a subject that the operation lists",
        ),
    ],
)
def test_a_lawful_call_is_permitted(call: Call, mode: str) -> None:
    permit = call.decide()
    assert (permit.token, permit.peer, permit.route, permit.mode) == (call.token, call.peer, call.route, mode)


UNAUTHORIZED = {
    "another peer's token": (Call().by(WRITER), Reason.ACTOR_MISMATCH),
    "a peer that the route does not list": (Call().on(peers=frozenset({WRITER})), Reason.POLICY_DENIED),
    "a trust domain of others": (
        Call().trusting(actor_trust_domains=frozenset({PARTNER.trust_domain})),
        Reason.POLICY_DENIED,
    ),
}


@pytest.mark.parametrize(("profile", "error"), [("sts", None), ("actor-profile-01", "actor_unauthorized")])
@pytest.mark.parametrize(("call", "reason"), UNAUTHORIZED.values(), ids=UNAUTHORIZED.keys())
def test_a_refused_actor_has_an_error_code_where_its_issuer_follows_the_actor_profile(
    call: Call, reason: Reason, profile: str, error: str | None
) -> None:
    issuers = {name: replace(one, profile=PRESETS[profile]) for name, one in call.policy.issuers.items()}
    with pytest.raises(Denied) as refused:
        replaced(call, issuers).decide()
    answer = refused.value.answer
    assert (refused.value.reason, answer.status, answer.error) == (reason, 403, error)


def test_a_refusal_of_anything_else_keeps_its_error_code_by_the_actor_profile() -> None:
    with pytest.raises(Denied) as refused:
        Call(claims(scope="")).trusting(profile=PRESETS["actor-profile-01"]).decide()
    assert refused.value.answer.error == "insufficient_scope"


CEILING = frozenset({"docs.read"})

REFUSED = [
    pytest.param(
        Call().under(issuers={}, token_services=frozenset()), Reason.WRONG_ISSUER, id="issuer not trusted any more"
    ),
    pytest.param(
        Call().on(issuers=frozenset({"https://other.example"})), Reason.ISSUER_NOT_FOR_ROUTE, id="issuer of others"
    ),
    pytest.param(Call().on(issuers=frozenset()), Reason.ISSUER_NOT_FOR_ROUTE, id="empty issuers mean nobody's"),
    pytest.param(Call().at(INBOUND_CLAIMS["exp"] + 30), Reason.TOKEN_EXPIRED, id="expired since"),
    pytest.param(Call().at(INBOUND_CLAIMS["iat"] - 31), Reason.TOKEN_NOT_YET_VALID, id="the clock went back"),
    pytest.param(Call().under(audiences=frozenset({"x"})), Reason.WRONG_AUDIENCE, id="audience not ours any more"),
    pytest.param(Call().under(deny=Deny(jtis=frozenset({"token-2"}))), Reason.POLICY_DENIED, id="denied token"),
    pytest.param(Call().under(deny=Deny(actors=frozenset({str(PLANNER)}))), Reason.POLICY_DENIED, id="denied actor"),
    pytest.param(bound(), Reason.CNF_MISMATCH, id="bound to a certificate that is not shown"),
    pytest.param(bound().showing("ac" * 32), Reason.CNF_MISMATCH, id="bound to another certificate"),
    pytest.param(Call(without(INBOUND_CLAIMS, "act")), Reason.ACT_MISSING, id="impersonation"),
    pytest.param(
        Call(without(INBOUND_CLAIMS, "act")).on(allow_self=True), Reason.ACT_MISSING, id="impersonation on a self route"
    ),
    pytest.param(Call(SELF_CLAIMS), Reason.ACT_MISSING, id="self where it is not allowed"),
    pytest.param(Call(SELF_CLAIMS).on(allow_self=True).by(WRITER), Reason.ACT_MISSING, id="another agent's self"),
    pytest.param(
        Call(claims(sub=str(PLANNER))), Reason.ACT_MISSING, id="subject and actor are the same where it is not allowed"
    ),
    pytest.param(Call().by(WRITER), Reason.ACTOR_MISMATCH, id="another peer's token"),
    pytest.param(Call().by(FRONT), Reason.ACTOR_MISMATCH, id="an earlier actor is not promoted"),
    pytest.param(Call().by(PARTNER), Reason.ACTOR_MISMATCH, id="the same path in another trust domain"),
    pytest.param(Call().by(SpiffeId(f"{PLANNER}2")), Reason.ACTOR_MISMATCH, id="a longer name"),
    pytest.param(Call().by(SpiffeId("spiffe://acme.example/agent/Planner")), Reason.ACTOR_MISMATCH, id="another case"),
    pytest.param(Call(actor_id=None), Reason.ACTOR_MISMATCH, id="an actor that cannot be mapped"),
    pytest.param(
        Call(claims(act={"sub": str(PARTNER)})).by(PARTNER).on(peers=frozenset({PARTNER})),
        Reason.POLICY_DENIED,
        id="an actor the issuer may not speak for",
    ),
    pytest.param(
        Call(claims(act={"sub": str(PARTNER)}), actor_id=None).by(PARTNER).on(peers=frozenset({PARTNER})),
        Reason.POLICY_DENIED,
        id="an actor the issuer may not speak for, and hence not mapped",
    ),
    pytest.param(
        Call(SELF_CLAIMS | {"sub": str(PARTNER)}).by(PARTNER).on(peers=frozenset({PARTNER}), allow_self=True),
        Reason.POLICY_DENIED,
        id="an agent for itself the issuer may not speak for",
    ),
    pytest.param(Call().trusting(actor_trust_domains=frozenset()), Reason.POLICY_DENIED, id="empty domains mean none"),
    pytest.param(Call().trusting(scopes=CEILING), Reason.SCOPE_ABOVE_CEILING, id="more than its issuer may grant"),
    pytest.param(Call().on(peers=frozenset({FRONT})), Reason.POLICY_DENIED, id="a peer that is not on the route"),
    pytest.param(Call().on(peers=frozenset()), Reason.POLICY_DENIED, id="empty peers mean nobody"),
    pytest.param(
        Call().on(protocol="mcp", operation="tools/call:a", subjects=frozenset({"bob"})),
        Reason.POLICY_DENIED,
        id="a subject that the operation does not list",
    ),
    pytest.param(Call(claims(scope="crm.read")), Reason.INSUFFICIENT_SCOPE, id="another scope"),
    pytest.param(
        Call(claims(scope="docs.rea docs.read.all docs")).trusting(scopes={"docs.rea", "docs.read.all", "docs"}),
        Reason.INSUFFICIENT_SCOPE,
        id="scopes match as a whole",
    ),
    pytest.param(
        Call().on(scopes=frozenset({"docs.read", "docs.write"})), Reason.INSUFFICIENT_SCOPE, id="all scopes are needed"
    ),
]


@pytest.mark.parametrize(("call", "reason"), REFUSED)
def test_a_call_with_one_fact_changed_is_refused(call: Call, reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        call.decide()
    assert refusal.value.reason is reason


def test_the_first_failure_decides_whatever_else_is_wrong() -> None:
    call = Call(claims(scope="x", act={"sub": str(WRITER)})).on(peers=frozenset(), issuers=frozenset()).at(NOW + 9999)
    call.under(audiences=frozenset(), deny=Deny(jtis=frozenset({"token-2"})))
    fixes: list[tuple[Reason, Callable[[], object]]] = [
        (Reason.ISSUER_NOT_FOR_ROUTE, lambda: call.on(issuers=frozenset({STS}))),
        (Reason.TOKEN_EXPIRED, lambda: call.at(NOW)),
        (Reason.WRONG_AUDIENCE, lambda: call.under(audiences=frozenset({str(WRITER)}))),
        (Reason.POLICY_DENIED, lambda: call.under(deny=Deny())),
        (Reason.ACTOR_MISMATCH, lambda: call.by(WRITER)),
        (Reason.SCOPE_ABOVE_CEILING, lambda: call.trusting(scopes=frozenset({"x"}))),
        (Reason.POLICY_DENIED, lambda: call.on(peers=frozenset({WRITER}))),
        (Reason.INSUFFICIENT_SCOPE, lambda: call.on(scopes=frozenset({"x"}))),
    ]
    for reason, fix in fixes:
        with pytest.raises(Denied) as refusal:
            call.decide()
        assert refusal.value.reason is reason
        fix()
    assert call.decide().peer == WRITER


@pytest.mark.parametrize(
    ("subject", "actor", "is_self"),
    [
        pytest.param("uuid-1", Actor("uuid-1"), True, id="one name of the token's issuer"),
        pytest.param("uuid-1", Actor("uuid-1", STS), True, id="said with its issuer"),
        pytest.param("uuid-1", Actor("uuid-1", IDP), False, id="another issuer's uuid-1"),
        pytest.param("uuid-1", Actor("uuid-2"), False, id="two names"),
        pytest.param(str(PLANNER), Actor("uuid-1"), True, id="one SPIFFE ID"),
    ],
)
def test_subject_and_actor_are_one_by_spiffe_id_or_their_issuers_name(
    subject: str, actor: Actor, is_self: bool
) -> None:
    # Keycloak's form: the actor's SPIFFE ID is in act.client_id, act.sub is the service account's user id.
    call = Call(claims(sub=subject), chain=ActChain((actor,), {}), actor_id=PLANNER)
    assert call.on(allow_self=True).decide().mode == ("self" if is_self else "delegated")


def inbound(token_claims: Claims = INBOUND_CLAIMS, *, route: InboundRoute = SEARCH, **signing: Any) -> Permit:
    return decide_inbound(
        signed(token_claims, **signing),
        peer=PLANNER,
        route=route,
        key=verification_key(),
        policy=POLICY,
        now=NOW,
    )


def test_a_signed_token_is_verified_and_decided_on() -> None:
    permit = inbound()
    assert (permit.token.subject, permit.peer, permit.mode) == ("alice", PLANNER, "delegated")
    assert delegate(permit).may_call == {"crm"}
    assert delegate(permit).scope == {"docs.read", "crm.read"}
    assert not delegate(permit).entry


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(lambda: inbound(key="other"), Reason.BAD_SIGNATURE, id="signature"),
        pytest.param(lambda: inbound(typ="jwt"), Reason.TOKEN_TYPE, id="type"),
        pytest.param(lambda: inbound(claims(iss=IDP)), Reason.WRONG_ISSUER, id="a user issuer is none here"),
        pytest.param(
            lambda: inbound(key="other", route=replace(SEARCH, issuers=frozenset())),
            Reason.ISSUER_NOT_FOR_ROUTE,
            id="issuer before signature",
        ),
        pytest.param(lambda: inbound(claims(aud=str(CRM))), Reason.WRONG_AUDIENCE, id="audience"),
        pytest.param(lambda: inbound(claims(act="planner")), Reason.ACT_MALFORMED, id="act"),
        pytest.param(lambda: inbound(claims(act={"sub": str(WRITER)})), Reason.ACTOR_MISMATCH, id="actor"),
        pytest.param(
            lambda: inbound(claims(cnf={"x5t#S256": "q6ur"})), Reason.CNF_MISMATCH, id="bound, and no certificate known"
        ),
    ],
)
def test_a_signed_token_with_one_fact_changed_is_refused(refused: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        refused()
    assert refusal.value.reason is reason


def test_a_token_bound_to_the_peers_certificate_is_taken() -> None:
    thumbprint = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"
    permit = decide_inbound(
        signed(claims(cnf={"x5t#S256": thumbprint})),
        peer=PLANNER,
        route=SEARCH,
        key=verification_key(),
        policy=POLICY,
        now=NOW,
        peer_certificate_sha256="ab" * 32,
    )
    assert permit.peer == PLANNER


def test_keys_are_looked_for_at_issuers_of_the_route_only() -> None:
    assert trusted_issuer(signed(INBOUND_CLAIMS), route=SEARCH, policy=POLICY) is STS_TRUST
    with pytest.raises(Denied) as refusal:
        trusted_issuer(signed(claims(iss="https://evil.example")), route=SEARCH, policy=POLICY)
    assert refusal.value.reason is Reason.WRONG_ISSUER


def test_no_key_is_looked_for_for_a_token_of_another_kind() -> None:
    with pytest.raises(Denied) as refusal:
        trusted_issuer(signed(INBOUND_CLAIMS, typ="JWT"), route=SEARCH, policy=POLICY)
    assert refusal.value.reason is Reason.TOKEN_TYPE
    with pytest.raises(Denied) as refusal:
        user_issuer(signed(LOGIN_CLAIMS, typ="at+jwt"), policy=POLICY)
    assert refusal.value.reason is Reason.TOKEN_TYPE


# Entry


def enter(token_claims: Claims = LOGIN_CLAIMS, policy: Policy = POLICY, **signing: Any) -> Any:
    return decide_entry(
        signed(token_claims, **{"typ": "jwt"} | signing), key=verification_key(), policy=policy, now=NOW
    )


def users(**changes: Any) -> Policy:
    return replace(POLICY, entry=replace(ENTRY, issuers={IDP: replace(USERS, **changes)}))


def test_a_login_token_starts_a_delegation_worth_what_the_map_says() -> None:
    delegation = enter()
    assert delegation.entry
    assert delegation.may_call == {"crm"}
    assert delegation.scope == {"crm.read", "docs.read"}
    assert delegation.token.subject == "alice"


def test_an_access_token_issued_to_the_entrys_client_starts_one_too() -> None:
    policy = users(trusted=replace(USERS.trusted, profile=PRESETS["oidc-access-token"]))
    token = LOGIN_CLAIMS | {"aud": "account", "azp": "front-app"}
    assert enter(token, policy).entry
    for other in ({"azp": "other-app"}, {"azp": "front-app2"}):
        with pytest.raises(Denied) as refusal:
            enter(token | other, policy)
        assert refusal.value.reason is Reason.WRONG_AUDIENCE


def test_the_client_that_a_profile_reads_from_another_claim_is_the_entrys() -> None:
    profile = replace(PRESETS["oidc-access-token"], client_claim="app")
    policy = users(trusted=replace(USERS.trusted, profile=profile))
    assert enter(LOGIN_CLAIMS | {"app": "front-app"}, policy).entry
    with pytest.raises(Denied) as refusal:
        enter(LOGIN_CLAIMS | {"app": "other-app"}, policy)
    assert refusal.value.reason is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize("claim", CLIENT_CLAIMS)
def test_every_claim_that_names_a_client_names_the_entrys(claim: str) -> None:
    policy = users(trusted=replace(USERS.trusted, profile=PRESETS["oidc-access-token"]))
    token = LOGIN_CLAIMS | {"aud": "account", "azp": "front-app"}
    assert enter(token | {claim: "front-app"}, policy).entry
    for other in ("other-app", None, ["front-app"]):
        with pytest.raises(Denied):
            enter(token | {claim: other}, policy)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(lambda: enter(policy=replace(POLICY, entry=None)), Reason.NOT_AN_ENTRY, id="no entry"),
        pytest.param(
            lambda: enter(LOGIN_CLAIMS | {"iss": STS}), Reason.WRONG_ISSUER, id="the STS is not a user issuer"
        ),
        pytest.param(lambda: enter(key="other"), Reason.BAD_SIGNATURE, id="signature"),
        pytest.param(lambda: enter(LOGIN_CLAIMS | {"aud": "other-app"}), Reason.WRONG_AUDIENCE, id="another client"),
        pytest.param(lambda: enter(LOGIN_CLAIMS | {"azp": "other-app"}), Reason.WRONG_AUDIENCE, id="issued to another"),
        pytest.param(lambda: enter(LOGIN_CLAIMS | {"exp": NOW - 30}), Reason.TOKEN_EXPIRED, id="expired"),
        pytest.param(lambda: enter(LOGIN_CLAIMS | {"act": {"sub": str(WRITER)}}), Reason.TOKEN_TYPE, id="an actor"),
        pytest.param(lambda: enter(LOGIN_CLAIMS | {"groups": 1}), Reason.MALFORMED_TOKEN, id="worth of another type"),
        pytest.param(
            lambda: enter(policy=replace(POLICY, deny=Deny(subjects=frozenset({(IDP, "alice")})))),
            Reason.POLICY_DENIED,
            id="denied subject",
        ),
        pytest.param(
            lambda: enter(policy=replace(POLICY, deny=Deny(subjects=frozenset({(None, "idp|alice")})))),
            Reason.POLICY_DENIED,
            id="denied by its name in the mesh",
        ),
    ],
)
def test_a_login_token_with_one_fact_changed_is_refused(refused: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        refused()
    assert refusal.value.reason is reason


def test_keys_are_looked_for_at_user_issuers_of_the_entry_only() -> None:
    assert user_issuer(signed(LOGIN_CLAIMS, typ="jwt"), policy=POLICY) is USERS


# Issued tokens


def accept(token_claims: Claims = ISSUED_CLAIMS, *, planned: Any = None, policy: Policy = POLICY, **more: Any) -> Any:
    certificate = more.pop("own_certificate_sha256", None)
    return accept_issued(
        signed(token_claims, **more),
        plan=planned or plan(),
        key=verification_key(),
        policy=policy,
        now=NOW,
        own_certificate_sha256=certificate,
    )


def test_an_issued_token_that_is_what_was_planned_permits_the_call() -> None:
    permit = accept()
    assert isinstance(permit, IssuedPermit)
    assert permit.token.audience == str(CRM)
    assert permit.plan == plan()
    assert accept(ENTRY_CLAIMS, planned=plan(login())).token.subject == "idp|alice"


def test_an_issued_token_may_be_bound_to_our_certificate_only() -> None:
    token = ISSUED_CLAIMS | {"cnf": {"x5t#S256": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"}}
    assert accept(token, own_certificate_sha256="ab" * 32)
    for certificate in (None, "ac" * 32):
        with pytest.raises(Denied) as refusal:
            accept(token, own_certificate_sha256=certificate)
        assert refusal.value.reason is Reason.STS_BAD_RESPONSE


def issued(**changes: Any) -> Claims:
    return ISSUED_CLAIMS | changes


def deep(levels: int) -> Claims:
    act: Claims = {"sub": str(FRONT)}
    for _ in range(levels):
        act = {"sub": str(FRONT), "act": act}
    return {"sub": str(WRITER), "act": act}


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        pytest.param(lambda: accept(key="other"), Reason.STS_SIGNATURE, id="signature"),
        pytest.param(lambda: accept(typ="jwt"), Reason.STS_TOKEN_TYPE, id="type"),
        pytest.param(lambda: accept(issued(iss=IDP)), Reason.STS_ISSUER, id="issuer"),
        pytest.param(lambda: accept(issued(aud=str(WRITER))), Reason.STS_AUDIENCE_MISMATCH, id="audience"),
        pytest.param(
            lambda: accept(issued(aud=[str(CRM), str(WRITER)])), Reason.STS_AUDIENCE_MISMATCH, id="two audiences"
        ),
        pytest.param(lambda: accept(issued(exp=NOW - 60)), Reason.STS_LIFETIME, id="expired"),
        pytest.param(lambda: accept(issued(exp=NOW - 10)), Reason.STS_LIFETIME, id="expired, within the leeway"),
        pytest.param(lambda: accept(issued(nbf=NOW + 60)), Reason.STS_LIFETIME, id="not yet valid"),
        pytest.param(lambda: accept(without(ISSUED_CLAIMS, "act")), Reason.STS_NO_ACT, id="no act"),
        pytest.param(lambda: accept(issued(act={})), Reason.STS_NO_ACT, id="act names nobody"),
        pytest.param(lambda: accept(issued(act=deep(9))), Reason.STS_CHAIN_BROKEN, id="too deep"),
        pytest.param(lambda: accept(issued(act={"sub": str(PLANNER)})), Reason.STS_ACTOR_MISMATCH, id="another actor"),
        pytest.param(lambda: accept(issued(sub="bob")), Reason.STS_SUBJECT_MISMATCH, id="subject"),
        pytest.param(lambda: accept(issued(scope="crm.read crm.write")), Reason.STS_SCOPE_WIDENED, id="wider"),
        pytest.param(lambda: accept(issued(scope=["crm.read"])), Reason.STS_BAD_RESPONSE, id="scope of another type"),
        pytest.param(lambda: accept(issued(jti="token-2")), Reason.STS_BAD_RESPONSE, id="the same jti"),
        pytest.param(
            lambda: accept(policy=replace(POLICY, token_services=frozenset())),
            Reason.STS_ISSUER,
            id="no STS in the policy by now",
        ),
        pytest.param(
            lambda: accept(planned=replace(plan(), sts_issuer="https://sts2.acme.example")),
            Reason.STS_ISSUER,
            id="planned with another STS",
        ),
    ],
)
def test_an_issued_token_that_is_something_else_is_refused(refused: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(Denied) as refusal:
        refused()
    assert refusal.value.reason is reason


def test_what_was_permitted_stands_while_the_token_is_valid() -> None:
    token = verified(INBOUND_CLAIMS)
    permit = decide_verified(token, peer=PLANNER, route=SEARCH, policy=POLICY, now=NOW)
    last = token.expires_at + token.leeway_s - 1
    check_again(permit, NOW)
    check_again(permit, last)
    with pytest.raises(Denied) as refused:
        check_again(permit, last + 1)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
    with pytest.raises(Denied) as refused:
        check_again(permit, token.not_before - token.leeway_s - 1)
    assert refused.value.reason is Reason.TOKEN_NOT_YET_VALID


SELF_SEARCH = replace(SEARCH, allow_self=True, delegate_self=True)


@pytest.mark.parametrize(
    ("route", "opened"), [(SELF_SEARCH, frozenset({"crm"})), (replace(SELF_SEARCH, delegate_self=False), frozenset())]
)
def test_a_workload_that_acts_for_itself_opens_calls_only_where_the_route_says_so(
    route: InboundRoute, opened: frozenset[str]
) -> None:
    permit = inbound({**SELF_CLAIMS, "scope": "docs.read crm.read"}, route=route)
    assert (permit.mode, delegate(permit).may_call) == ("self", opened)
    assert delegate(inbound(route=route)).may_call == {"crm"}
    came = replace(delegate(permit), may_call=frozenset({"crm"}))  # judged before a reload
    assert opened_routes(came, replace(POLICY, inbound=InboundRoutes([route]))) == opened
