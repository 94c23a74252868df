"""Delegated tokens of a foreign token service: one lawful exchange, and the same with one fact changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.act import ActChain, Actor
from delegation_core.crossing import Crossing
from delegation_core.errors import ConfigError, Denied, Reason, SidecarError
from delegation_core.profile import ActorForm, IssuerProfile, TrustedIssuer
from delegation_core.profile_presets import PRESETS
from delegation_core.revocation import Kind
from delegation_core.rfc8693 import TOKEN_TYPE_ID_TOKEN
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.sts.authority import authority_of
from sidecar.sts.policy import StsPolicy
from sidecar.sts.records import ExchangeRecord
from sidecar.sts.rules import ANYONE, ForeignIssuer, Rule, SubjectMatch, Target
from tests.fakes.sts import (
    ALICE,
    ALL_USERS,
    FORM,
    FRONT,
    LOGIN,
    PARTNER,
    Mesh,
    encoded,
    login_issuer,
    scopes,
    small_policy,
)
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, TokenMint
from tests.sts.test_authority import DELEGATED
from tests.sts.test_revocations import order, reason_of, register

PARTNERS: Final = "https://sts.partner.example"
PARTNERS_LOGIN: Final = "https://login.partner.example"
STOCK: Final = SpiffeId("spiffe://acme.example/tool/stock")
BOB: Final = SubjectMatch(PARTNERS, "bob")

Change = Callable[["Border"], dict[str, object]]


def foreign(profile: IssuerProfile = PRESETS["sts"], **changes: Any) -> ForeignIssuer:
    lawful: dict[str, Any] = {
        "trusted": TrustedIssuer(
            issuer=PARTNERS,
            profile=profile,
            scopes=scopes("orders.read"),
            actor_trust_domains=frozenset({TrustDomain("partner.example")}),
        ),
        "crossing": Crossing(
            issuer=PARTNERS,
            subject_prefix="partner:",
            scopes={"orders.read": scopes("crm.read"), "orders.all": scopes("crm.read crm.write")},
        ),
        "actors": {WRITER: frozenset({str(CRM)})},
    }
    return ForeignIssuer(**{**lawful, **changes})


def policy(*rules: Rule, **changes: Any) -> StsPolicy:
    lawful = {
        "targets": (
            Target(workload=PLANNER, scopes=scopes("docs.read crm.read")),
            Target(workload=WRITER, scopes=scopes("docs.read crm.read")),
            Target(workload=CRM, scopes=scopes("crm.read crm.write")),
            Target(workload=STOCK, scopes=scopes("crm.read")),
        ),
        "rules": (
            Rule(actor=WRITER, subjects=frozenset({ALL_USERS, BOB}), audience=CRM, scopes=scopes("crm.read")),
            Rule(actor=WRITER, subjects=frozenset({ALL_USERS, BOB}), audience=STOCK, scopes=scopes("crm.read")),
            *rules,
        ),
        "self_rules": (),
        "login_issuers": {LOGIN: login_issuer(subject_prefix="acme:")},
        "foreign_issuers": {PARTNERS: foreign()},
    }
    return small_policy(**{**lawful, **changes})


class Border(Mesh):
    """Acme's token service. Bob of the partner asked its helper, the helper asked acme's writer, which asks the CRM."""

    def __init__(self, of: StsPolicy | None = None) -> None:
        super().__init__(policy=of or policy())
        self.partners = TokenMint(PARTNERS, kid="f1", key=3)
        self.login_keys.keys[PARTNERS] = self.partners.keys

    def foreign_token(self, **changes: object) -> str:
        """Return writer's token by the partner's token service, with these claims changed."""
        lawful = {
            "sub": "bob",
            "client_id": str(PARTNER),
            "scope": "orders.read",
            "jti": "foreign-2",
            "txn": "partners-txn",
            "sub_id": {"format": "iss_sub", "iss": PARTNERS_LOGIN, "sub": "bob"},
            "act": {"sub": str(PARTNER), "act": {"sub": "legacy", "iss": PARTNERS_LOGIN}},
            "may_act": {"sub": str(WRITER)},
        }
        return self.partners.mint(self.partners.claims(**{**lawful, **changes}))

    def form(self, client: SpiffeId = WRITER, *, token: str | None = None, **changes: str) -> dict[str, object]:
        return self.exchange_form(client, **{"subject_token": token or self.foreign_token(), **changes})


async def test_a_crossing_keeps_chain_txn_and_sub_id_and_names_the_subject_by_its_prefix() -> None:
    border = Border()
    assert await border.claims_for(border.form()) == {
        "iss": ISSUER,
        "sub": "partner:bob",
        "sub_id": {"format": "iss_sub", "iss": PARTNERS_LOGIN, "sub": "bob"},
        "aud": CRM,
        "scope": "crm.read",
        "client_id": WRITER,
        "act": {"sub": WRITER, "act": {"sub": PARTNER, "act": {"sub": "legacy", "iss": PARTNERS_LOGIN}}},
        "may_act": {"sub": CRM},
        "txn": "partners-txn",
        "parent_jti": "foreign-2",
        "jti": "new-jti-1",
        "iat": NOW,
        "exp": NOW + 290,
    }
    ((event, record),) = border.log.events
    assert (event, record["subject"], record["subject_iss"]) == ("token.exchanged", "partner:bob", ISSUER)
    assert record["crossed_from"] == PARTNERS
    assert (record["txn"], record["jti_in"], record["parent_jti"]) == ("partners-txn", "foreign-2", "foreign-2")


async def test_what_the_foreign_token_lacks_is_made_here() -> None:
    border = Border()
    claims = await border.claims_for(border.form(token=border.foreign_token(txn=ABSENT, sub_id=ABSENT)))
    assert claims["txn"] == "new-txn-1"
    assert claims["sub_id"] == {"format": "iss_sub", "iss": PARTNERS, "sub": "bob"}


async def test_a_crossed_chain_goes_on_under_the_rules_for_the_foreign_subject() -> None:
    onwards = Rule(actor=CRM, subjects=frozenset({BOB}), audience=STOCK, scopes=scopes("crm.read"))
    border = Border(policy(onwards))
    first = await border.ask(border.form())
    form = border.exchange_form(CRM, subject_token=first["access_token"], audience=STOCK, actor_token=border.svid(CRM))
    claims = await border.claims_for(form, CRM)
    assert (claims["sub"], claims["txn"]) == ("partner:bob", "partners-txn")
    assert claims["sub_id"] == {"format": "iss_sub", "iss": PARTNERS_LOGIN, "sub": "bob"}


async def test_a_foreign_sub_id_never_matches_a_rule_for_our_own_users() -> None:
    for_alice = Rule(actor=CRM, subjects=frozenset({ALICE}), audience=STOCK, scopes=scopes("crm.read"))
    border = Border(policy(for_alice))
    ours = border.own(
        sub="acme:alice", aud=str(CRM), act={"sub": str(WRITER)}, may_act={"sub": str(CRM)}, scope="crm.read"
    )
    forged = border.foreign_token(sub_id={"format": "iss_sub", "iss": LOGIN, "sub": "alice"})
    crossed = (await border.ask(border.form(token=forged)))["access_token"]

    def onwards(token: object) -> dict[str, object]:
        return border.exchange_form(CRM, subject_token=token, audience=STOCK, actor_token=border.svid(CRM))

    assert await reason_of(border, onwards(ours), CRM) is None
    assert await reason_of(border, onwards(crossed), CRM) is Reason.DELEGATION_NOT_ALLOWED
    border.service.policy = policy(rules=(for_alice,), foreign_issuers={})  # the partner is removed, its tokens live on
    assert await reason_of(border, onwards(crossed), CRM) is Reason.DELEGATION_NOT_ALLOWED
    assert await reason_of(border, onwards(ours), CRM) is None


def token(**changes: object) -> Change:
    return lambda border: border.form(token=border.foreign_token(**changes))


def asked(**changes: str) -> Change:
    return lambda border: border.form(WRITER, **changes)


def to_planner(border: Border) -> dict[str, object]:
    """Return planner's request, with a token for planner."""
    return border.form(PLANNER, token=border.foreign_token(aud=str(PLANNER), may_act=ABSENT))


@pytest.mark.parametrize(
    ("form", "client", "reason"),
    [
        pytest.param(to_planner, PLANNER, Reason.DELEGATION_NOT_ALLOWED, id="an actor that is not listed"),
        pytest.param(
            asked(audience=str(STOCK)), WRITER, Reason.DELEGATION_NOT_ALLOWED, id="a target that is not listed"
        ),
        pytest.param(token(sub="carol"), WRITER, Reason.DELEGATION_NOT_ALLOWED, id="a subject without a rule"),
        pytest.param(token(aud=str(CRM)), WRITER, Reason.NOT_YOUR_TOKEN, id="another workload's token"),
        pytest.param(token(act=ABSENT), WRITER, Reason.NOT_AN_ENTRY, id="no actor"),
        pytest.param(token(sub=str(PARTNER)), WRITER, Reason.NOT_AN_ENTRY, id="an actor for itself"),
        pytest.param(
            token(act={"sub": str(PLANNER)}), WRITER, Reason.DELEGATION_NOT_ALLOWED, id="an actor of our domain"
        ),
        pytest.param(
            token(act={"sub": str(WRITER)}), WRITER, Reason.DELEGATION_NOT_ALLOWED, id="the client as the actor"
        ),
        pytest.param(token(act={"sub": "legacy"}), WRITER, Reason.DELEGATION_NOT_ALLOWED, id="an actor of no domain"),
        pytest.param(token(scope="crm.read"), WRITER, Reason.SCOPE_REFUSED, id="a scope by its name here"),
        pytest.param(token(scope=ABSENT), WRITER, Reason.SCOPE_REFUSED, id="no scope"),
        pytest.param(asked(scope="crm.write"), WRITER, Reason.SCOPE_REFUSED, id="above the map"),
        pytest.param(
            lambda border: border.form(token=border.foreign_token(scope="orders.all"), scope="crm.write"),
            WRITER,
            Reason.SCOPE_REFUSED,
            id="within the map, above the rule",
        ),
        pytest.param(token(exp=NOW), WRITER, Reason.TOKEN_EXPIRED, id="expired within the leeway"),
        pytest.param(
            token(sub_id={"format": "opaque", "id": "x"}), WRITER, Reason.MALFORMED_TOKEN, id="another sub_id"
        ),
        pytest.param(
            token(sub_id={"format": "iss_sub", "iss": PARTNERS, "sub": "bob", "more": 1}),
            WRITER,
            Reason.MALFORMED_TOKEN,
            id="a sub_id that says more",
        ),
        pytest.param(token(may_act={"sub": str(PLANNER)}), WRITER, Reason.MAY_ACT_REFUSED, id="another may act"),
        pytest.param(
            asked(subject_token_type=TOKEN_TYPE_ID_TOKEN), WRITER, Reason.EXCHANGE_MALFORMED, id="as an ID token"
        ),
        pytest.param(token(iss="https://sts.else.example"), WRITER, Reason.WRONG_ISSUER, id="an unknown issuer"),
        pytest.param(
            lambda border: border.form(token=TokenMint(PARTNERS, kid="f1", key=4).mint()),
            WRITER,
            Reason.BAD_SIGNATURE,
            id="another key",
        ),
        pytest.param(
            lambda border: border.form(
                token=border.partners.mint(border.partners.claims(), border.partners.header(typ="JWT"))
            ),
            WRITER,
            Reason.TOKEN_TYPE,
            id="another kind of token",
        ),
    ],
)
async def test_an_attack_is_refused_and_its_lawful_twin_served(form: Change, client: SpiffeId, reason: Reason) -> None:
    border = Border()
    assert await reason_of(border, form(border), client) is reason
    assert await reason_of(border, border.form()) is None


async def test_no_key_is_fetched_for_a_client_that_may_not_cross() -> None:
    border = Border()
    border.login_keys.late = True
    assert await reason_of(border, to_planner(border), PLANNER) is Reason.DELEGATION_NOT_ALLOWED
    assert border.login_keys.waited == []
    assert await reason_of(border, border.form()) is None
    assert border.login_keys.waited == [(PARTNERS, "f1")]


async def test_the_client_is_not_the_actor_already_by_whatever_name_its_issuer_has_for_it() -> None:
    profile = replace(PRESETS["sts"], name="p", actor=ActorForm.CLIENT_ID)
    trusted = replace(
        foreign(profile).trusted, actor_trust_domains=frozenset({TrustDomain("acme.example"), PARTNER.trust_domain})
    )
    border = Border(policy(foreign_issuers={PARTNERS: foreign(trusted=trusted)}))
    by_helper = border.foreign_token(act={"sub": "c1", "client_id": str(PARTNER)})
    by_client = border.foreign_token(act={"sub": "c1", "client_id": str(WRITER)})
    assert await reason_of(border, border.form(token=by_helper)) is None
    assert await reason_of(border, border.form(token=by_client)) is Reason.SELF_DELEGATION


async def test_a_chain_of_the_most_actors_does_not_cross() -> None:
    border = Border(policy(max_depth=2))
    one = border.foreign_token(act={"sub": str(PARTNER)})
    assert await reason_of(border, border.form(token=one)) is None
    assert await reason_of(border, border.form()) is Reason.ACT_TOO_DEEP


@pytest.mark.parametrize(("rest_s", "expires_in"), [(290, 290), (7, 7), (3000, 300)])
async def test_a_token_never_outlives_the_foreign_one_or_the_policy(rest_s: int, expires_in: int) -> None:
    border = Border()
    assert (await border.ask(border.form(token=border.foreign_token(exp=NOW + rest_s))))["expires_in"] == expires_in


async def test_a_foreign_user_who_is_revoked_by_the_partner_s_name_is_stopped_where_the_chain_has_crossed() -> None:
    onwards = Rule(actor=CRM, subjects=frozenset({BOB}), audience=STOCK, scopes=scopes("crm.read"))
    border = Border(policy(onwards))
    known = register(border)
    crossed = (await border.ask(border.form()))["access_token"]
    form = border.exchange_form(CRM, subject_token=crossed, audience=STOCK, actor_token=border.svid(CRM))
    assert await reason_of(border, form, CRM) is None
    await known.add(order(Kind.SUBJECT, "carol", PARTNERS))
    assert await reason_of(border, form, CRM) is None
    await known.add(order(Kind.SUBJECT, "bob", PARTNERS))
    assert await reason_of(border, form, CRM) is Reason.REVOKED
    names = {(one.issuer, one.value) for one in known.revocations(border.service.policy).in_force.values()}
    assert names == {
        (PARTNERS, "carol"), (ISSUER, "partner:carol"), (PARTNERS, "bob"), (ISSUER, "partner:bob"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "issuer"),
    [
        pytest.param(Kind.SUBJECT, "bob", PARTNERS, id="as the partner names him"),
        pytest.param(Kind.SUBJECT, "partner:bob", ISSUER, id="as we name him"),
        pytest.param(Kind.SUBJECT, "bob", PARTNERS_LOGIN, id="as he logged in"),
        pytest.param(Kind.TXN, "partners-txn", None, id="the chain"),
        pytest.param(Kind.ACTOR, WRITER, None, id="the client"),
    ],
)
async def test_what_is_revoked_does_not_cross(kind: Kind, value: str, issuer: str | None) -> None:
    border = Border()
    known = register(border)
    assert await reason_of(border, border.form()) is None
    await known.add(order(kind, value, issuer))
    assert await reason_of(border, border.form()) is Reason.REVOKED


async def test_a_refusal_is_recorded_with_the_foreign_chain() -> None:
    border = Border()
    record = await _refused(border)
    assert (record["subject"], record["subject_iss"], record["txn"]) == ("bob", PARTNERS, "partners-txn")
    assert (record["chain"], record["verified"]) == ([PARTNER, "legacy"], True)


async def _refused(border: Border) -> dict[str, Any]:
    record, form = ExchangeRecord(border.log, ISSUER), encoded(border.form(audience=str(STOCK)))
    with pytest.raises(SidecarError) as refused:
        await border.service.token(form, FORM, client=WRITER, record=record)
    record.refuse(refused.value, 400)
    ((_, fields),) = border.log.events
    return dict(fields)


ALIKE: Final = foreign(crossing=replace(foreign().crossing, subject_prefix="acme"))


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param(
            {"foreign_issuers": {ISSUER: foreign()}},
            ["rules[0].subjects", "rules[1].subjects", *[f"foreign_issuers.{ISSUER}"] * 2],
            id="us",
        ),
        pytest.param({"login_issuers": {LOGIN: login_issuer()}}, ["foreign_issuers"], id="logins without a prefix"),
        pytest.param({"foreign_issuers": {PARTNERS: ALIKE}}, ["foreign_issuers"], id="a prefix that starts another"),
        pytest.param(
            {"foreign_issuers": {PARTNERS: foreign(actors={})}}, [f"foreign_issuers.{PARTNERS}.actors"], id="nobody"
        ),
        pytest.param(
            {"foreign_issuers": {PARTNERS: foreign(actors={WRITER: frozenset({"https://x"})})}},
            [f"foreign_issuers.{PARTNERS}.actors"],
            id="no target",
        ),
        pytest.param(
            {"foreign_issuers": {PARTNERS: foreign(actors={PLANNER: frozenset({str(CRM)})})}},
            [f"foreign_issuers.{PARTNERS}.actors"],
            id="no rule",
        ),
        pytest.param(
            {
                "foreign_issuers": {
                    PARTNERS: foreign(trusted=replace(foreign().trusted, actor_trust_domains=frozenset()))
                }
            },
            [f"foreign_issuers.{PARTNERS}.actor_trust_domains"],
            id="nobody's actors",
        ),
        pytest.param(
            {"foreign_issuers": {PARTNERS: foreign(crossing=replace(foreign().crossing, scopes={}))}},
            [f"foreign_issuers.{PARTNERS}.scopes", f"foreign_issuers.{PARTNERS}.actors"],
            id="no scope",
        ),
        pytest.param(
            {"foreign_issuers": {}}, ["rules[0].subjects", "rules[1].subjects"], id="rules for an issuer that is gone"
        ),
    ],
)
def test_a_contradiction_is_refused_and_named(changes: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        policy(**changes)
    assert [problem.field for problem in refused.value.problems] == fields


def test_a_rule_for_anyone_lets_foreign_subjects_cross() -> None:
    anyone = Rule(
        actor=PLANNER, subjects=frozenset({SubjectMatch(ANYONE, ANYONE)}), audience=CRM, scopes=scopes("crm.read")
    )
    listed = foreign(actors={PLANNER: frozenset({str(CRM)})})
    assert policy(anyone, foreign_issuers={PARTNERS: listed}).foreign_pair("partner:bob") == (PARTNERS, "bob")
    assert policy().foreign_pair("acme:alice") is None


def test_a_login_issuer_is_no_foreign_issuer() -> None:
    both = foreign(trusted=replace(foreign().trusted, issuer=LOGIN), crossing=replace(foreign().crossing, issuer=LOGIN))
    apart = replace(both, crossing=replace(both.crossing, subject_prefix="x:"))
    with pytest.raises(ConfigError) as refused:
        policy(foreign_issuers={PARTNERS: foreign(), LOGIN: apart})
    assert [problem.wrong for problem in refused.value.problems] == ["is also a login issuer"]


async def test_a_login_is_still_taken_beside_foreign_tokens() -> None:
    border = Border(
        policy(Rule(actor=FRONT, subjects=frozenset({ALL_USERS}), audience=PLANNER, scopes=scopes("crm.read")))
    )
    assert (await border.claims_for(border.login_form(), FRONT))["sub"] == "acme:alice"


def test_a_foreign_token_for_another_audience_stands_for_nothing() -> None:
    chain = ActChain((Actor(str(PARTNER)),), {"sub": str(PARTNER)})
    token = replace(DELEGATED, issuer=PARTNERS, subject="bob", sub_id=None, chain=chain, actor_id=PARTNER)
    assert authority_of(token, client=WRITER, policy=policy(), now=NOW).issued_subject == "partner:bob"
    with pytest.raises(Denied) as refused:
        authority_of(replace(token, audience=str(CRM)), client=WRITER, policy=policy(), now=NOW)
    assert refused.value.reason is Reason.NOT_YOUR_TOKEN
