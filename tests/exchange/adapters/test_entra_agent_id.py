"""Entra Agent ID: a user's token for the blueprint becomes one of which the agent identity is the actor."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from delegation_core.act import ActChain, Actor
from delegation_core.errors import Reason, SidecarError
from delegation_core.login_issuer import LoginKind
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, plan_outbound, plan_own
from sidecar.exchange.adapters.entra_agent_id import ADAPTER
from tests.exchange.adapters.entra_world import TENANT, at_tenant, entry_policy, login_plan, tenant_of
from tests.exchange.adapters.steps import answered, ended, played, wanted
from tests.exchange.world import authority, reason_of, route, subject_of
from tests.fakes.entra_tenant import (
    AGENT,
    ALICE,
    BLUEPRINT,
    CRM_API,
    FOR_EXCHANGE,
    SIBLING,
    EntraTenant,
    TenantMint,
    parent,
)
from tests.fakes.lies import CONTENT_LIES, claims, header, members, refusal, reply, token
from tests.fakes.lying_sts import ACCESS_TOKEN, SECRET, Behaviour
from tests.fakes.tokens import ABSENT, ISSUER, NOW, PLANNER, WRITER

BY: Final = entry_policy()
OPTIONS: Final = {"agent_id": AGENT}


def test_the_messages_are_those_of_the_documentation() -> None:
    asked = login_plan(BY)
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, OPTIONS, svid=None, client_id=BLUEPRINT))
    response = played(steps, "entra-agent-id", {"USER_TOKEN": subject_of(asked).raw})
    assert (response.access_token, response.expires_in) == ("ISSUED", 3269)


def test_only_the_blueprint_s_step_is_shared_and_authenticated_by_us() -> None:
    steps = ADAPTER.exchange(wanted(ADAPTER, login_plan(BY), OPTIONS, svid=None))
    first = next(steps)
    second = steps.send(answered(issued_token_type=None))
    assert [(step.shared, step.authenticate, step.once) for step in (first, second)] == [
        (True, True, False),
        (False, False, False),
    ]


@pytest.mark.parametrize(
    ("scope", "granted", "reason"),
    [
        pytest.param("named", f"{CRM_API}/crm.read", None, id="as asked for"),
        pytest.param("named", "api://crm/crm.read", None, id="by the name of the resource"),
        pytest.param("named", "crm.read", None, id="without the resource"),
        pytest.param("default", f"{CRM_API}/.default", None, id="the default, echoed"),
        pytest.param("default", f"{CRM_API}/crm.read", None, id="the default, resolved"),
        pytest.param("named", f"{CRM_API}/.default", Reason.STS_SCOPE_WIDENED, id="the default, not asked for"),
        pytest.param("named", f"{CRM_API}/crm.write", Reason.STS_SCOPE_WIDENED, id="another"),
        pytest.param("default", f"{CRM_API}/crm.read {CRM_API}/x", Reason.STS_SCOPE_WIDENED, id="one more"),
        pytest.param("named", f"{CRM_API}/xcrm.read", Reason.STS_SCOPE_WIDENED, id="a name that ends alike"),
    ],
)
def test_the_answer_s_scope_has_the_resource_before_each_name(scope: str, granted: str, reason: Reason | None) -> None:
    steps = ADAPTER.exchange(wanted(ADAPTER, login_plan(BY), {**OPTIONS, "scope": scope}, svid=None))
    answers = answered(issued_token_type=None), answered(issued_token_type=None, scope=granted)
    if reason is None:
        assert ended(steps, *answers).access_token == "a.b.c"
        return
    with pytest.raises(SidecarError) as caught:
        ended(steps, *answers)
    assert caught.value.reason is reason


@pytest.mark.parametrize(("option", "asked"), [("named", f"{CRM_API}/crm.read"), ("default", f"{CRM_API}/.default")])
async def test_a_login_becomes_a_token_that_names_the_user_by_oid_and_the_agent_by_azp(option: str, asked: str) -> None:
    async with at_tenant(options={"scope": option}) as world:
        issued = (await world.exchange.exchange(login_plan(BY), BY)).permit.token
        assert (issued.subject, issued.actor_id, issued.audience) == (ALICE, WRITER, CRM_API)
        assert issued.scope == {"crm.read"}
        first, second = world.sts.forms
        assert (first["client_id"], first["fmi_path"]) == (BLUEPRINT, AGENT)
        assert (second["client_id"], second["scope"]) == (AGENT, asked)
        assert "client_secret" not in second
        assert world.source.audiences == [FOR_EXCHANGE]


# What these change is read from other claims here (oid, scp, uti), or compared with nothing at an entry.
TRUTHS: Final = {
    "no act", "other transaction", "no transaction", "no original subject", "other sub", "sub in another case",
    "sub is the actor", "no sub", "widened scope", "other scope", "scope as a list", "no jti",
    "the subject token's jti", "no issued token type",
}  # fmt: skip
OTHERWISE: Final = {
    # no act is ever issued here, so one contradicts azp, whomever it names
    **dict.fromkeys(
        ("other actor", "actor by another spelling", "act not moved on", "actor of a foreign trust domain"),
        Reason.STS_CHAIN_BROKEN,
    ),
    "forged": Reason.STS_TOKEN_TYPE,  # its header is another issuer's too
    "issued an id token": Reason.STS_BAD_RESPONSE,  # no exchange, so no issued_token_type
    "issued a refresh token": Reason.STS_BAD_RESPONSE,
}
LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    **{name: (lie, OTHERWISE.get(name, reason)) for name, (lie, reason) in CONTENT_LIES.items() if name not in TRUTHS},
    "the subject token": (token(lambda _sts, form: form["assertion"]), Reason.STS_AUDIENCE_MISMATCH),
    "the agent's own credential": (token(lambda _sts, form: form["client_assertion"]), Reason.STS_AUDIENCE_MISMATCH),
    "forged with a key like it": (
        token(lambda sts, form: TenantMint(key=7).mint(sts.claims(form))),
        Reason.STS_SIGNATURE,
    ),
    "another user": (claims(oid="somebody"), Reason.STS_SUBJECT_MISMATCH),
    "the user in another case": (claims(oid=ALICE.upper()), Reason.STS_SUBJECT_MISMATCH),
    "the agent as the user": (claims(oid=AGENT), Reason.STS_SUBJECT_MISMATCH),
    "no user": (claims(oid=ABSENT), Reason.STS_BAD_RESPONSE),
    "a sibling of the agent": (claims(azp=SIBLING), Reason.STS_ACTOR_MISMATCH),
    "the blueprint": (claims(azp=BLUEPRINT), Reason.STS_ACTOR_MISMATCH),
    "the agent in another case": (claims(azp=AGENT.upper()), Reason.STS_ACTOR_MISMATCH),
    "the SPIFFE ID itself": (claims(azp=str(WRITER)), Reason.STS_ACTOR_MISMATCH),
    "no client": (claims(azp=ABSENT), Reason.STS_BAD_RESPONSE),
    "version 1": (claims(azp=ABSENT, appid=AGENT), Reason.STS_BAD_RESPONSE),
    "an act as well": (claims(act={"sub": AGENT}), Reason.STS_CHAIN_BROKEN),
    "an app's own token": (claims(idtyp="app", oid=ALICE), Reason.STS_TOKEN_TYPE),
    "no kind of subject": (claims(idtyp=ABSENT), Reason.STS_TOKEN_TYPE),
    "an actor that is no agent": (claims(xms_act_fct="3 9"), Reason.STS_TOKEN_TYPE),
    "no facets of the actor": (claims(xms_act_fct=ABSENT), Reason.STS_TOKEN_TYPE),
    "a user account of the agent": (claims(xms_sub_fct="3 13"), Reason.STS_TOKEN_TYPE),
    "the agent as its own subject": (claims(xms_sub_fct="9 3 11"), Reason.STS_TOKEN_TYPE),
    "all that was ever granted": (claims(scp="crm.read crm.write"), Reason.STS_SCOPE_WIDENED),
    "another permission": (claims(scp="docs.read"), Reason.STS_SCOPE_WIDENED),
    "permissions with their resource": (claims(scp=f"{CRM_API}/crm.read"), Reason.STS_SCOPE_WIDENED),
    "permissions as a list": (claims(scp=["crm.read"]), Reason.STS_BAD_RESPONSE),
    "another session": (claims(sid="another"), Reason.STS_CHAIN_BROKEN),
    "a login that is told here alone": (claims(auth_time=NOW), Reason.STS_CHAIN_BROKEN),
    "a life of an hour": (claims(exp=NOW + 3600), Reason.STS_LIFETIME),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_is_refused_by_its_name_and_nothing_is_kept(lie: Behaviour, reason: Reason) -> None:
    async with at_tenant() as world:
        world.sts.behaviour = lie
        planned = login_plan(BY)
        assert await reason_of(world, planned, BY) is reason
        assert world.exchange.cached(planned, policy=BY, now=NOW) is None
        assert len(world.sts.forms) == 2
        await world.records()
        assert SECRET.encode() not in world.sink.written


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(claims(sub="another-pairwise-name"), id="sub differs per resource"),
        pytest.param(claims(xms_act_fct="11"), id="no other facet of the actor"),
        pytest.param(claims(xms_sub_fct=ABSENT, xms_par_app_azp=ABSENT), id="fewer optional claims"),
        pytest.param(claims(roles=["Admin"], groups=["g"]), id="more claims"),
        pytest.param(header(x5t="AA"), id="the key's thumbprint"),
        pytest.param(members(scope=ABSENT, ext_expires_in=ABSENT), id="fewer members"),
    ],
)
async def test_what_a_tenant_may_be_configured_to_is_no_lie(truth: Behaviour) -> None:
    async with at_tenant() as world:
        world.sts.behaviour = truth
        issued = await world.exchange.exchange(login_plan(BY), BY)
        assert issued.permit.token.actor_id == WRITER


PARENT_LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "no bearer token": (parent(token_type="pop"), Reason.STS_TOKEN_TYPE),
    "no token type": (parent(token_type=ABSENT), Reason.STS_BAD_RESPONSE),
    "an exchanged token": (parent(issued_token_type=ACCESS_TOKEN), Reason.STS_BAD_RESPONSE),
    "a refresh token beside it": (parent(refresh_token=SECRET), Reason.STS_BAD_RESPONSE),
    "an error beside it": (parent(error="invalid_grant"), Reason.STS_BAD_RESPONSE),
    "no token": (parent(access_token=ABSENT), Reason.STS_BAD_RESPONSE),
    "a token of two lines": (parent(access_token="a\nb"), Reason.STS_BAD_RESPONSE),
    "a life without end": (parent(expires_in=2**40), Reason.STS_BAD_RESPONSE),
    "no JSON": (reply(body=SECRET.encode()), Reason.STS_BAD_RESPONSE),
    "another media type": (reply(content_type="text/html"), Reason.STS_BAD_RESPONSE),
    "a redirect": (refusal(302), Reason.STS_REDIRECT),
    "no such agent": (refusal(400), Reason.EXCHANGE_DENIED),
    "a wrong client": (refusal(401, "invalid_client"), Reason.STS_ERROR),
    "no more": (refusal(429), Reason.STS_UNAVAILABLE),
    "an outage": (refusal(503), Reason.STS_UNAVAILABLE),
}


@pytest.mark.parametrize(("lie", "reason"), PARENT_LIES.values(), ids=PARENT_LIES.keys())
async def test_without_a_token_of_the_blueprint_no_users_token_is_shown(lie: Behaviour, reason: Reason) -> None:
    async with at_tenant() as world:
        tenant_of(world).parent = lie
        assert await reason_of(world, login_plan(BY), BY) is reason
        assert all("assertion" not in form for form in world.sts.forms)
        await world.records()
        assert SECRET.encode() not in world.sink.written


async def test_an_agent_identity_that_the_settings_map_to_nobody_or_to_another_is_not_us() -> None:
    for table in ({SIBLING: WRITER}, {AGENT: PLANNER}):
        by = entry_policy(table)
        async with at_tenant() as world:
            assert await reason_of(world, login_plan(by), by) is Reason.STS_ACTOR_MISMATCH


async def test_a_chain_that_the_tenant_drops_is_not_used() -> None:
    login = subject_of(login_plan(BY))
    under_way = replace(login, chain=ActChain((Actor(str(PLANNER)),), {"sub": str(PLANNER)}))
    delegation = Delegation(token=under_way, may_call=frozenset({"crm"}), entry=False, scope=frozenset({"crm.read"}))
    planned = plan_outbound(delegation, route(audience=CRM_API), policy=BY, now=NOW)
    async with at_tenant() as world:
        assert await reason_of(world, planned, BY) is Reason.STS_CHAIN_BROKEN


async def test_no_id_token_leaves_and_no_token_of_our_own_is_asked_for() -> None:
    assert BY.entry is not None
    user = replace(BY.entry.issuers[ISSUER], kind=LoginKind.ID_TOKEN)
    by = replace(BY, entry=replace(BY.entry, issuers={ISSUER: user}))
    own = replace(route(), token="self")
    own_by = replace(BY, outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    async with at_tenant() as world:
        assert await reason_of(world, login_plan(by), by) is Reason.ISSUER_NOT_FOR_ROUTE
        planned = plan_own(own, policy=own_by, now=NOW)
        assert await reason_of(world, planned, own_by) is Reason.OWN_AUTHORITY_REFUSED
        assert world.sts.forms == []


async def test_a_tenant_that_grants_more_than_was_planned_issues_nothing_that_is_used() -> None:
    tenant = EntraTenant(mint=TENANT, bundle=authority(), granted={CRM_API: frozenset({"crm.read", "crm.write"})})
    async with at_tenant(tenant) as world:
        assert await reason_of(world, login_plan(BY), BY) is Reason.STS_SCOPE_WIDENED
