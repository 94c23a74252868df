"""Identity chaining: a chain of one domain goes on in another, by a crossing of the route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.crossing import Crossing
from delegation_core.errors import Denied, Reason
from delegation_core.plan import Delegation, Plan, plan_outbound
from delegation_core.rfc8693 import TOKEN_TYPE_JWT
from delegation_core.route import OutboundRoute
from sidecar.exchange.adapters.identity_chaining import ADAPTER
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.adapters.steps import first, played, wanted
from tests.exchange.world import SUB_ID, World, policy, reason_of, route, running, subject_of
from tests.fakes.chained_sts import ChainedSts, First, granted
from tests.fakes.grant_lies import GRANT_LIES
from tests.fakes.lies import CONTENT_LIES, EVIL, claims
from tests.fakes.lying_sts import SECRET, Behaviour
from tests.fakes.tokens import ABSENT, ISSUER, NOW, PLANNER, WRITER, TokenMint

HOME: Final = TokenMint("https://as.home.example", key=4)
AT_HOME: Final = EndpointSettings(
    endpoint=Endpoint(url="http://127.0.0.1/home"), client_auth=ClientAuthSettings(audience=HOME.issuer)
)
CROSSING: Final = Crossing(issuer=HOME.issuer, subject_prefix="home:", scopes={"docs.read": frozenset({"crm.read"})})


def crossing_route(*crossings: Crossing) -> OutboundRoute:
    return replace(route(), crossings={one.issuer: one for one in crossings or (CROSSING,)})


def crossing_plan(to: OutboundRoute | None = None, **changes: Any) -> Plan:
    """Return the plan for the call of a chain that began at home."""
    token = HOME.verified(**{"txn": "txn-1", "sub_id": SUB_ID, **changes})
    delegation = Delegation(token=token, may_call=frozenset({"crm"}), entry=False, scope=token.scope)
    return plan_outbound(delegation, to or crossing_route(), policy=policy(), now=NOW)


def world(options: dict[str, str] | None = None, **lawful: object) -> World:
    sts = ChainedSts(
        granting=HOME, grant_type=TOKEN_TYPE_JWT, lawful={"sub": "home:user-4711", "parent_jti": ABSENT, **lawful}
    )
    return World(sts=sts, adapter="identity-chaining", endpoints={"home": AT_HOME}, options=options or {})


def chained(of: World) -> ChainedSts:
    assert isinstance(of.sts, ChainedSts)
    return of.sts


def test_the_messages_are_those_of_the_draft() -> None:
    asked = crossing_plan()
    grant = HOME.mint({"iss": HOME.issuer, "sub": "johndoe", "aud": ISSUER, "exp": NOW + 60}, HOME.header(typ=ABSENT))
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, svid=None))
    response = played(steps, "identity-chaining", {"ACCESS_TOKEN": subject_of(asked).raw, "GRANT": grant})
    assert response.access_token == "b./77-.ehs96cFAx~ac00~qG+z8N_x/4.RpL-2Ykc4~"


async def test_a_chain_goes_on_behind_the_prefix_of_the_crossing() -> None:
    async with running(world()) as one:
        issued = await one.exchange.exchange(crossing_plan(), policy())
        token = issued.permit.token
        assert (token.subject, token.sub_id, token.txn) == ("home:user-4711", (SUB_ID["iss"], SUB_ID["sub"]), "txn-1")
        assert token.chain is not None
        assert token.chain.subjects == (WRITER, PLANNER)
        assert [form.get("scope") for form in one.sts.forms] == ["crm.read", "crm.read"]


def test_without_a_crossing_nothing_is_asked() -> None:
    with pytest.raises(Denied) as caught:
        crossing_plan(route())
    assert caught.value.reason is Reason.ISSUER_NOT_FOR_ROUTE


@pytest.mark.parametrize(
    ("lawful", "reason"),
    [
        ({"sub": "user-4711"}, Reason.STS_SUBJECT_MISMATCH),
        ({"sub": "doe.john@b.example"}, Reason.STS_SUBJECT_MISMATCH),
        ({"act": {"sub": str(WRITER)}}, Reason.STS_CHAIN_BROKEN),
        ({"act": {"sub": str(PLANNER)}}, Reason.STS_ACTOR_MISMATCH),
        ({"act": {"sub": HOME.issuer, "act": {"sub": str(PLANNER)}}}, Reason.STS_ACTOR_MISMATCH),
        ({"act": ABSENT}, Reason.STS_NO_ACT),
        ({"scope": "docs.read"}, Reason.STS_SCOPE_WIDENED),
    ],
)
async def test_a_transcription_that_loses_user_or_chain_is_refused(lawful: dict[str, Any], reason: Reason) -> None:
    async with running(world(**lawful)) as one:
        assert await reason_of(one, crossing_plan(), policy()) is reason


def test_options_say_how_the_second_server_is_named_and_who_is_asked_for_scopes() -> None:
    def form(options: dict[str, str]) -> dict[str, str]:
        return dict(first(ADAPTER.exchange(wanted(ADAPTER, crossing_plan(), options, svid=None))).form)

    assert (form({})["audience"], "resource" in form({})) == (ISSUER, False)
    by_resource = form({"target": "resource"})
    assert (by_resource["resource"], "audience" in by_resource) == (ISSUER, False)
    assert "scope" not in form({"scope": "last"})


@pytest.mark.parametrize(
    ("options", "iss", "reason"),
    [
        ({}, HOME.issuer, None),
        ({}, "https://broker.example", Reason.STS_ISSUER),
        ({"home_issuer": "https://broker.example"}, "https://broker.example", None),
        ({"home_issuer": "https://broker.example"}, HOME.issuer, Reason.STS_ISSUER),
    ],
)
async def test_grants_are_by_the_issuer_of_the_inbound_token_or_by_the_one_that_is_set(
    options: dict[str, str], iss: str, reason: Reason | None
) -> None:
    async with running(world(options)) as one:
        chained(one).first = granted({"iss": iss})
        if reason is None:
            await one.exchange.exchange(crossing_plan(), policy())
        else:
            assert await reason_of(one, crossing_plan(), policy()) is reason
            assert chained(one).presented == []


OWN_LIES: Final[dict[str, tuple[First, Reason]]] = {
    "another token type": (
        granted(members={"issued_token_type": "urn:ietf:params:oauth:token-type:id-jag"}),
        Reason.STS_TOKEN_TYPE,
    ),
    "an ID-JAG": (granted(header={"typ": "oauth-id-jag+jwt"}), Reason.STS_TOKEN_TYPE),
}


@pytest.mark.parametrize(
    ("lie", "reason"), [*GRANT_LIES.values(), *OWN_LIES.values()], ids=[*GRANT_LIES, *(f"own {n}" for n in OWN_LIES)]
)
async def test_a_false_grant_never_reaches_the_second_server(lie: First, reason: Reason) -> None:
    async with running(world()) as one:
        chained(one).first = lie
        assert await reason_of(one, crossing_plan(), policy()) is reason
        assert chained(one).presented == []
        await one.records()
        assert SECRET.encode() not in one.sink.written


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(granted(header={"typ": ABSENT}), id="untyped"),
        pytest.param(granted(header={"typ": "authorization-grant+jwt"}), id="typed as a grant"),
        pytest.param(granted({"aud": [ISSUER]}), id="one audience in a list"),
        pytest.param(granted({"sub": "doe.john@b.example"}), id="another name of the user between the servers"),
        pytest.param(granted({"scope": "crm.read", "act": {"sub": EVIL}}), id="more claims"),
    ],
)
async def test_what_the_draft_leaves_open_is_no_lie(truth: First) -> None:
    async with running(world()) as one:
        chained(one).first = truth
        issued = await one.exchange.exchange(crossing_plan(), policy())
        assert issued.permit.token.actor_id == WRITER
        assert len(chained(one).presented) == 1


async def test_scopes_of_the_first_server_are_its_own_where_only_the_last_is_asked() -> None:
    async with running(world({"scope": "last"})) as one:
        chained(one).first = granted({"scope": "docs.read"}, members={"scope": "docs.read"})
        await one.exchange.exchange(crossing_plan(), policy())
        chained(one).second = claims(scope="crm.read crm.write")
        assert await reason_of(one, crossing_plan(jti="another"), policy()) is Reason.STS_SCOPE_WIDENED


TRUTHS: Final = {"no issued token type"}
OTHERWISE: Final = {
    "the subject token": Reason.STS_ISSUER,
    "issued an id token": Reason.STS_BAD_RESPONSE,  # no exchange, so no issued_token_type
    "issued a refresh token": Reason.STS_BAD_RESPONSE,
}
ISSUED_LIES: Final = {
    name: (lie, OTHERWISE.get(name, reason)) for name, (lie, reason) in CONTENT_LIES.items() if name not in TRUTHS
}


@pytest.mark.parametrize(("lie", "reason"), ISSUED_LIES.values(), ids=ISSUED_LIES.keys())
async def test_a_lie_of_the_second_server_is_refused_by_its_name(lie: Behaviour, reason: Reason) -> None:
    async with running(world()) as one:
        chained(one).second = lie
        assert await reason_of(one, crossing_plan(), policy()) is reason
        assert len(one.sts.forms) == 2
        await one.records()
        assert SECRET.encode() not in one.sink.written
