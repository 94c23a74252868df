"""Keycloak 26.7: a login becomes a token of which the authenticated client is the actor, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from delegation_core.act import ActChain, Actor
from delegation_core.errors import Reason, SidecarError
from delegation_core.login_issuer import LoginKind
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Delegation, Plan, plan_outbound, plan_own
from sidecar.exchange.adapters.keycloak_26_7 import ADAPTER
from tests.exchange.adapters.keycloak_world import at_realm, entry_policy, login_plan
from tests.exchange.adapters.steps import answered, ended, played, wanted
from tests.exchange.world import reason_of, route, subject_of
from tests.fakes.keycloak_realm import ALICE
from tests.fakes.lies import CONTENT_LIES, EVIL, claims, header, members
from tests.fakes.lying_sts import SECRET, Behaviour
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER

BY: Final = entry_policy("keycloak-26.7")


def test_the_messages_are_those_of_the_server() -> None:
    asked = login_plan(BY)
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, svid=None))
    response = played(steps, "keycloak-26.7", {"ACCESS_TOKEN": subject_of(asked).raw})
    assert (response.access_token, response.expires_in) == ("ISSUED", 300)


def test_an_answer_is_read_against_what_was_asked_for() -> None:
    asked = wanted(ADAPTER, login_plan(BY), svid=None)
    with pytest.raises(SidecarError) as caught:
        ended(ADAPTER.exchange(asked), answered(scope="profile crm.read email"))
    assert caught.value.reason is Reason.STS_SCOPE_WIDENED


async def test_a_login_becomes_a_token_that_names_the_user_and_the_acting_client() -> None:
    async with at_realm(ADAPTER.name) as world:
        token = (await world.exchange.exchange(login_plan(BY), BY)).permit.token
        assert (token.issuer, token.subject, token.actor_id, token.audience) == (ISSUER, ALICE, WRITER, CRM)
        (form,) = world.sts.forms
        assert "actor_token" not in form
        assert (form["scope"], form["client_id"]) == ("crm.read", str(WRITER))
        assert world.source.audiences == [ISSUER]


# The profile reads the actor from azp, and at an entry no chain came in: these change nothing that is compared.
TRUTHS: Final = {"no act", "other transaction", "no transaction", "no original subject"}
OTHERWISE: Final = {
    # any act is a mapper's work: it contradicts azp, whomever it names
    **dict.fromkeys(
        ("other actor", "actor by another spelling", "act not moved on", "actor of a foreign trust domain"),
        Reason.STS_CHAIN_BROKEN,
    ),
    "the subject token's jti": Reason.STS_TOKEN_TYPE,  # it does not tell of an exchange
}
LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    **{name: (lie, OTHERWISE.get(name, reason)) for name, (lie, reason) in CONTENT_LIES.items() if name not in TRUTHS},
    "an act that an administrator wrote": (claims(act={"sub": str(WRITER)}), Reason.STS_CHAIN_BROKEN),
    "another client": (claims(azp=str(PLANNER)), Reason.STS_ACTOR_MISMATCH),
    "a client of another spelling": (claims(azp=WRITER.upper()), Reason.STS_ACTOR_MISMATCH),
    "a client that is no SPIFFE ID": (claims(azp="writer"), Reason.STS_ACTOR_MISMATCH),
    "a client of a foreign trust domain": (
        claims(azp="spiffe://other.example/agent/writer"),
        Reason.STS_ACTOR_MISMATCH,
    ),
    "no client": (claims(azp=ABSENT), Reason.STS_BAD_RESPONSE),
    "another client beside ours": (claims(azp=EVIL, client_id=str(WRITER)), Reason.STS_TOKEN_TYPE),
    "of a service account in a session": (claims(client_id=str(WRITER)), Reason.STS_TOKEN_TYPE),
    "our own token": (claims(jti="trrtcc:1"), Reason.STS_TOKEN_TYPE),
    "exchanged for our own token": (claims(jti="trrtte:1"), Reason.STS_TOKEN_TYPE),
    "a login at our client": (claims(jti="onrtac:1"), Reason.STS_TOKEN_TYPE),
    "a service account": (claims(sub="service-account"), Reason.STS_SUBJECT_MISMATCH),
    "another session": (claims(sid="another"), Reason.STS_CHAIN_BROKEN),
    "a younger login": (claims(auth_time=NOW), Reason.STS_CHAIN_BROKEN),
    "an ID token": (claims(typ="ID"), Reason.STS_TOKEN_TYPE),
    "a refresh token in its place": (claims(typ="Refresh"), Reason.STS_TOKEN_TYPE),
    "bound by DPoP": (claims(typ="DPoP", cnf={"jkt": "x"}), Reason.STS_BAD_RESPONSE),
    "untyped": (header(typ=ABSENT), Reason.STS_TOKEN_TYPE),
    "the default scopes": (members(scope="profile crm.read email"), Reason.STS_SCOPE_WIDENED),
    "the default scopes in the token alone": (claims(scope="profile crm.read email"), Reason.STS_SCOPE_WIDENED),
    "a life beyond the login": (claims(exp=NOW + 300), Reason.STS_LIFETIME),
    "an ID token, as asked for by nobody": (members(token_type="N_A"), Reason.STS_TOKEN_TYPE),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_is_refused_by_its_name_and_nothing_is_kept(lie: Behaviour, reason: Reason) -> None:
    async with at_realm(ADAPTER.name) as world:
        world.sts.behaviour = lie
        wanted_plan = login_plan(BY)
        assert await reason_of(world, wanted_plan, BY) is reason
        assert world.exchange.cached(wanted_plan, policy=BY, now=NOW) is None
        assert len(world.sts.forms) == 1
        await world.records()
        assert SECRET.encode() not in world.sink.written


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(claims(aud=[str(CRM)]), id="one audience in a list"),
        pytest.param(claims(jti="onrtte:1"), id="a session of the client"),
        pytest.param(header(typ="at+jwt"), id="the type of RFC 9068"),
        pytest.param(claims(sid=ABSENT, auth_time=ABSENT), id="no session told"),
        pytest.param(claims(name="Alice", preferred_username="alice"), id="more claims"),
        pytest.param(members(session_state=ABSENT, scope=ABSENT), id="fewer members"),
    ],
)
async def test_what_a_realm_may_be_configured_to_is_no_lie(truth: Behaviour) -> None:
    async with at_realm(ADAPTER.name) as world:
        world.sts.behaviour = truth
        issued = await world.exchange.exchange(login_plan(BY), BY)
        assert issued.permit.token.actor_id == WRITER


def chained() -> Plan:
    """Return the plan for a call in a chain that is under way, as an administrator's mapper could write it."""
    login = subject_of(login_plan(BY))
    token = replace(login, chain=ActChain((Actor(str(PLANNER)),), {"sub": str(PLANNER)}))
    delegation = Delegation(token=token, may_call=frozenset({"crm"}), entry=False, scope=frozenset({"crm.read"}))
    return plan_outbound(delegation, route(), policy=BY, now=NOW)


async def test_a_chain_that_the_realm_drops_is_not_used() -> None:
    async with at_realm(ADAPTER.name) as world:
        assert await reason_of(world, chained(), BY) is Reason.STS_CHAIN_BROKEN
        assert world.exchange.cached(chained(), policy=BY, now=NOW) is None


async def test_no_id_token_leaves_and_no_token_of_our_own_is_asked_for() -> None:
    assert BY.entry is not None
    user = replace(BY.entry.issuers[ISSUER], kind=LoginKind.ID_TOKEN)
    by = replace(BY, entry=replace(BY.entry, issuers={ISSUER: user}))
    own = replace(route(), token="self")
    own_by = replace(BY, outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    async with at_realm(ADAPTER.name) as world:
        assert await reason_of(world, login_plan(by), by) is Reason.ISSUER_NOT_FOR_ROUTE
        planned = plan_own(own, policy=own_by, now=NOW)
        assert await reason_of(world, planned, own_by) is Reason.OWN_AUTHORITY_REFUSED
        assert world.sts.forms == []
