"""Keycloak 26.8 with delegation: our own token beside the user's, and the client in ``act`` is the actor."""

from __future__ import annotations

from typing import Any, Final

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.plan import Plan
from sidecar.exchange.adapters.keycloak_26_8 import ADAPTER
from tests.exchange.adapters.keycloak_world import at_realm, entry_policy, login_plan, realm_of
from tests.exchange.adapters.steps import answered, ended, played, wanted
from tests.exchange.world import reason_of, subject_of
from tests.fakes.keycloak_realm import ACCOUNTS, ALICE, EXCHANGE, MAY_ACT, login, own
from tests.fakes.lies import CONTENT_LIES, EVIL, claims, header, members, refusal, reply
from tests.fakes.lying_sts import ACCESS_TOKEN, SECRET, Behaviour
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER

BY: Final = entry_policy("keycloak")
PLANNERS: Final = {"sub": ACCOUNTS[str(PLANNER)], "client_id": str(PLANNER)}


def delegable(**changes: Any) -> Plan:
    """Return the plan for alice's first call; she lets the workload act for her."""
    return login_plan(BY, **{"may_act": MAY_ACT, **changes})


def test_the_messages_are_those_of_the_server() -> None:
    asked = delegable()
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, svid=None))
    response = played(steps, "keycloak-26.8", {"ACCESS_TOKEN": subject_of(asked).raw})
    assert (response.access_token, response.expires_in) == ("ISSUED", 300)


def test_only_our_own_token_is_shared() -> None:
    steps = ADAPTER.exchange(wanted(ADAPTER, delegable(), svid=None))
    first = next(steps)
    second = steps.send(answered(issued_token_type=None))
    assert [(step.shared, step.authenticate, step.once) for step in (first, second)] == [
        (True, True, False),
        (False, True, False),
    ]


def test_an_answer_is_read_against_what_was_asked_for() -> None:
    asked = wanted(ADAPTER, delegable(), svid=None)
    with pytest.raises(SidecarError) as caught:
        ended(ADAPTER.exchange(asked), answered(issued_token_type=None), answered(scope="crm.read crm.write"))
    assert caught.value.reason is Reason.STS_SCOPE_WIDENED


async def test_a_login_becomes_a_token_that_names_the_user_and_the_client_in_act() -> None:
    async with at_realm(ADAPTER.name) as world:
        token = (await world.exchange.exchange(delegable(), BY)).permit.token
        assert (token.issuer, token.subject, token.actor_id, token.audience) == (ISSUER, ALICE, WRITER, CRM)
        assert token.chain is not None
        assert token.chain.raw == MAY_ACT
        assert world.source.audiences == [ISSUER] * 2


def act(**changes: object) -> Behaviour:
    return claims(act={**MAY_ACT, **changes})


# At an entry no chain came in: these change nothing that is compared.
TRUTHS: Final = {"other transaction", "no transaction", "no original subject"}
# The lies of the table that write another act, as this realm would write them.
ACTS: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "no act": (claims(act=ABSENT), Reason.STS_NO_ACT),
    "act is null": (claims(act=None), Reason.STS_NO_ACT),
    "act is a string": (claims(act=str(WRITER)), Reason.STS_NO_ACT),
    "act without sub": (claims(act={"client_id": str(WRITER)}), Reason.STS_NO_ACT),
    "other actor": (claims(act=PLANNERS), Reason.STS_ACTOR_MISMATCH),
    "actor by another spelling": (act(client_id=WRITER.upper()), Reason.STS_ACTOR_MISMATCH),
    "act not moved on": (claims(act={"sub": ALICE}), Reason.STS_ACTOR_MISMATCH),
    "actor of a foreign trust domain": (
        act(client_id="spiffe://other.example/agent/writer"),
        Reason.STS_ACTOR_MISMATCH,
    ),
    "chain dropped": (act(act=PLANNERS), Reason.STS_CHAIN_BROKEN),
    "chain spliced": (act(act={"sub": EVIL}), Reason.STS_CHAIN_BROKEN),
    "chain longer": (act(act={**PLANNERS, "act": {"sub": EVIL}}), Reason.STS_CHAIN_BROKEN),
    "ourselves twice": (act(act=MAY_ACT), Reason.STS_CHAIN_BROKEN),
    "prior actor embellished": (act(act={**PLANNERS, "iss": ISSUER}), Reason.STS_CHAIN_BROKEN),
    "the SPIFFE ID as account, without a client": (claims(act={"sub": str(WRITER)}), Reason.STS_ACTOR_MISMATCH),
    "a client that is no SPIFFE ID": (act(client_id="writer"), Reason.STS_ACTOR_MISMATCH),
    "a client that is no text": (act(client_id=[str(WRITER)]), Reason.STS_CHAIN_BROKEN),
    "ours in azp, another in act": (claims(act=PLANNERS, azp=str(WRITER)), Reason.STS_ACTOR_MISMATCH),
}
LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    **{name: row for name, row in CONTENT_LIES.items() if name not in TRUTHS},
    **ACTS,
    "the subject token's jti": (claims(jti=login()["jti"]), Reason.STS_BAD_RESPONSE),
    "another session": (claims(sid="another"), Reason.STS_CHAIN_BROKEN),
    "a stronger login": (claims(acr="2"), Reason.STS_CHAIN_BROKEN),
    "no client": (claims(azp=ABSENT), Reason.STS_BAD_RESPONSE),
    "an ID token": (claims(typ="ID"), Reason.STS_TOKEN_TYPE),
    "bound by DPoP": (claims(typ="DPoP", cnf={"jkt": "x"}), Reason.STS_BAD_RESPONSE),
    "untyped": (header(typ=ABSENT), Reason.STS_TOKEN_TYPE),
    "the default scopes": (members(scope="profile crm.read email"), Reason.STS_SCOPE_WIDENED),
    "a life beyond the login": (claims(exp=NOW + 300), Reason.STS_LIFETIME),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_is_refused_by_its_name_and_nothing_is_kept(lie: Behaviour, reason: Reason) -> None:
    async with at_realm(ADAPTER.name) as world:
        world.sts.behaviour = lie
        planned = delegable()
        assert await reason_of(world, planned, BY) is reason
        assert world.exchange.cached(planned, policy=BY, now=NOW) is None
        assert len(world.sts.forms) == 2
        await world.records()
        assert SECRET.encode() not in world.sink.written


OWN_LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "bound by DPoP": (own(token_type="DPoP"), Reason.STS_TOKEN_TYPE),
    "no token type": (own(token_type=ABSENT), Reason.STS_BAD_RESPONSE),
    "an exchanged token": (own(issued_token_type=ACCESS_TOKEN), Reason.STS_BAD_RESPONSE),
    "a refresh token beside it": (own(refresh_token=SECRET), Reason.STS_BAD_RESPONSE),
    "an error beside it": (own(error="invalid_grant"), Reason.STS_BAD_RESPONSE),
    "no token": (own(access_token=ABSENT), Reason.STS_BAD_RESPONSE),
    "a token of two lines": (own(access_token="a\nb"), Reason.STS_BAD_RESPONSE),
    "a life without end": (own(expires_in=2**40), Reason.STS_BAD_RESPONSE),
    "no JSON": (reply(body=SECRET.encode()), Reason.STS_BAD_RESPONSE),
    "another media type": (reply(content_type="text/html"), Reason.STS_BAD_RESPONSE),
    "a redirect": (refusal(302), Reason.STS_REDIRECT),
    "no grant for us": (refusal(400, "unauthorized_client"), Reason.EXCHANGE_DENIED),
    "a wrong client": (refusal(401, "invalid_client"), Reason.STS_ERROR),
    "no more": (refusal(429), Reason.STS_UNAVAILABLE),
    "an outage": (refusal(503), Reason.STS_UNAVAILABLE),
}


@pytest.mark.parametrize(("lie", "reason"), OWN_LIES.values(), ids=OWN_LIES.keys())
async def test_without_a_token_of_our_own_no_users_token_is_shown(lie: Behaviour, reason: Reason) -> None:
    async with at_realm(ADAPTER.name) as world:
        realm_of(world).own = lie
        assert await reason_of(world, delegable(), BY) is reason
        assert all(form["grant_type"] != EXCHANGE for form in world.sts.forms)
        await world.records()
        assert SECRET.encode() not in world.sink.written
