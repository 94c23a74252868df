"""ID-JAG: an ID token of a user becomes an access token at another domain's server, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.decide import decide_entry
from delegation_core.errors import Denied, Reason
from delegation_core.login_issuer import LoginKind
from delegation_core.plan import Plan, plan_outbound
from delegation_core.policy import Policy
from delegation_core.profile import ActorForm
from delegation_core.profile_presets import PRESETS
from delegation_core.rfc8693 import TOKEN_TYPE_ID_TOKEN
from sidecar.exchange.adapters.adapter import Answer
from sidecar.exchange.adapters.id_jag_04 import ADAPTER, ID_JAG
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.sts import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.adapters.steps import played, wanted
from tests.exchange.world import LOGIN, SUB_ID, World, plan, policy, reason_of, route, running, subject_of
from tests.fakes.chained_sts import ChainedSts, First, granted
from tests.fakes.grant_lies import GRANT_LIES
from tests.fakes.lies import CONTENT_LIES, EVIL, claims, members
from tests.fakes.lying_sts import SECRET, Behaviour
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, TokenMint, encode

IDP: Final = EndpointSettings(
    endpoint=Endpoint(url="http://127.0.0.1/idp"), client_auth=ClientAuthSettings(audience=LOGIN.issuer)
)
# The resource authorization server keeps the users' names and names the acting client; its tokens have no act.
BY_CLIENT: Final = replace(PRESETS["sts"], actor=ActorForm.CLIENT, subject_issuer=LOGIN.issuer)


def by_client(**changes: object) -> Policy:
    profile = replace(BY_CLIENT, **changes)  # type: ignore[arg-type]
    return replace(policy(), issuers={ISSUER: TokenMint().trusted(profile)})


def login_plan(by: Policy | None = None, **changes: object) -> Plan:
    """Return the plan for alice's first call, by her ID token."""
    by = by or by_client()
    lawful = {"aud": "front", "azp": "front", "groups": ["sales"], "act": ABSENT, "client_id": ABSENT}
    raw = LOGIN.mint(LOGIN.claims(**{**lawful, **changes}), LOGIN.header(typ="JWT"))
    return plan_outbound(
        decide_entry(parse_bearer(raw), key=LOGIN.key, policy=by, now=NOW), route(), policy=by, now=NOW
    )


def world(**lawful: object) -> World:
    sts = ChainedSts(
        granting=LOGIN,
        typ="oauth-id-jag+jwt",
        grant_type=ID_JAG,
        about={"client_id": str(WRITER), "resource": str(CRM), "scope": "crm.read"},
        lawful={"act": ABSENT, "parent_jti": ABSENT, **lawful},
    )
    return World(sts=sts, adapter="id-jag-04", endpoints={"idp": IDP})


def chained(of: World) -> ChainedSts:
    assert isinstance(of.sts, ChainedSts)
    return of.sts


def test_the_messages_are_those_of_the_draft() -> None:
    asked = login_plan()
    login = subject_of(asked)
    grant = LOGIN.mint(
        {
            "jti": "9e43f81b64a33f20116179",
            "iss": LOGIN.issuer,
            "sub": login.subject,
            "aud": ISSUER,
            "client_id": str(WRITER),
            "exp": NOW + 300,
            "iat": NOW,
            "resource": str(CRM),
            "scope": "crm.read",
        },
        LOGIN.header(typ="oauth-id-jag+jwt"),
    )
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, subject_token_type=TOKEN_TYPE_ID_TOKEN, svid=None))
    response = played(steps, "id-jag-04", {"ID_TOKEN": login.raw, "ID_JAG": grant})
    assert response.access_token == "2YotnFZFEjr1zCsicMWpAA"


async def test_a_login_becomes_a_token_that_names_the_user_and_the_acting_client() -> None:
    async with running(world()) as one:
        issued = await one.exchange.exchange(login_plan(), by_client())
        token = issued.permit.token
        assert (token.subject, token.actor_id, token.audience) == ("user-4711", WRITER, CRM)
        assert [form["grant_type"].rpartition(":")[2] for form in one.sts.forms] == ["token-exchange", "jwt-bearer"]
        assert "actor_token" not in one.sts.forms[0]


OWN_LIES: Final[dict[str, tuple[First, Reason]]] = {
    "untyped": (granted(header={"typ": ABSENT}), Reason.STS_TOKEN_TYPE),
    "an ID token": (granted(header={"typ": "JWT"}), Reason.STS_TOKEN_TYPE),
    "another client": (granted({"client_id": str(PLANNER)}), Reason.STS_ACTOR_MISMATCH),
    "another user": (granted({"sub": "user-1"}), Reason.STS_SUBJECT_MISMATCH),
    "the user in another case": (granted({"sub": "USER-4711"}), Reason.STS_SUBJECT_MISMATCH),
    "another resource": (granted({"resource": "spiffe://acme.example/tool/mail"}), Reason.STS_AUDIENCE_MISMATCH),
    "two resources": (granted({"resource": [str(CRM), EVIL]}), Reason.STS_AUDIENCE_MISMATCH),
    "bound to a key": (
        granted({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
        Reason.STS_BAD_RESPONSE,
    ),
    "another token type": (
        granted(members={"issued_token_type": "urn:ietf:params:oauth:token-type:jwt"}),
        Reason.STS_TOKEN_TYPE,
    ),
    **{
        f"no {claim}": (granted({claim: ABSENT}), Reason.STS_BAD_RESPONSE)
        for claim in ("sub", "client_id", "jti", "exp", "iat")
    },
}


@pytest.mark.parametrize(
    ("lie", "reason"), [*GRANT_LIES.values(), *OWN_LIES.values()], ids=[*GRANT_LIES, *(f"own {n}" for n in OWN_LIES)]
)
async def test_a_false_id_jag_never_reaches_the_second_server(lie: First, reason: Reason) -> None:
    async with running(world()) as one:
        chained(one).first = lie
        assert await reason_of(one, login_plan(), by_client()) is reason
        assert chained(one).presented == []
        await one.records()
        assert SECRET.encode() not in one.sink.written


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(granted({"aud": [ISSUER]}), id="one audience in a list"),
        pytest.param(granted({"resource": [str(CRM)]}), id="one resource in a list"),
        pytest.param(granted({"resource": ABSENT}), id="no resource"),
        pytest.param(granted({"scope": ABSENT}), id="no scope"),
        pytest.param(granted({"act": {"sub": str(PLANNER)}, "email": "a@b", "tenant": "t"}), id="more claims"),
        pytest.param(granted(members={"scope": "crm.read"}), id="the scope told"),
        pytest.param(granted(members={"expires_in": ABSENT}), id="no lifetime told"),
    ],
)
async def test_what_the_draft_leaves_open_is_no_lie(truth: First) -> None:
    async with running(world()) as one:
        chained(one).first = truth
        issued = await one.exchange.exchange(login_plan(), by_client())
        assert issued.permit.token.actor_id == WRITER
        assert len(chained(one).presented) == 1


# At an entry no chain came in, and a user's name is kept: what these change is compared with nothing.
TRUTHS: Final = {"no act", "other transaction", "no transaction", "no original subject", "no issued token type"}
OTHERWISE: Final = {
    # the profile reads the actor from the client, so any act that names somebody contradicts it
    **dict.fromkeys(
        ("other actor", "actor by another spelling", "act not moved on", "actor of a foreign trust domain"),
        Reason.STS_CHAIN_BROKEN,
    ),
    "the subject token": Reason.STS_ISSUER,
    "issued an id token": Reason.STS_BAD_RESPONSE,  # no exchange, so no issued_token_type
    "issued a refresh token": Reason.STS_BAD_RESPONSE,
}
ISSUED_LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    **{name: (lie, OTHERWISE.get(name, reason)) for name, (lie, reason) in CONTENT_LIES.items() if name not in TRUTHS},
    "another client": (claims(client_id=str(PLANNER)), Reason.STS_ACTOR_MISMATCH),
    "no client": (claims(client_id=ABSENT), Reason.STS_BAD_RESPONSE),
    "the local name of the user": (claims(sub="local-7"), Reason.STS_SUBJECT_MISMATCH),
    "a day long": (claims(exp=NOW + 86_400), Reason.STS_LIFETIME),
}


@pytest.mark.parametrize(("lie", "reason"), ISSUED_LIES.values(), ids=ISSUED_LIES.keys())
async def test_a_lie_of_the_second_server_is_refused_by_its_name(lie: Behaviour, reason: Reason) -> None:
    async with running(world()) as one:
        chained(one).second = lie
        assert await reason_of(one, login_plan(), by_client()) is reason
        assert len(one.sts.forms) == 2
        await one.records()
        assert SECRET.encode() not in one.sink.written


async def test_a_grant_in_place_of_the_token_is_no_token() -> None:
    async with running(world()) as one:
        chained(one).second = members(token_type="N_A")
        assert await reason_of(one, login_plan(), by_client()) is Reason.STS_TOKEN_TYPE


PAIR: Final = {"format": "iss_sub", "iss": LOGIN.issuer, "sub": "user-4711"}


@pytest.mark.parametrize(
    ("subject_issuer", "lawful", "reason"),
    [
        pytest.param(LOGIN.issuer, {}, None, id="the profile says that names are kept"),
        pytest.param(None, {"sub_id": PAIR}, None, id="sub_id names the login"),
        pytest.param(None, {}, Reason.STS_SUBJECT_MISMATCH, id="nothing says whose name it is"),
        pytest.param("https://other.example", {}, Reason.STS_SUBJECT_MISMATCH, id="names of another issuer are kept"),
        pytest.param(None, {"sub_id": SUB_ID}, Reason.STS_SUBJECT_MISMATCH, id="sub_id names somebody else"),
        pytest.param(
            None, {"sub": "local-7", "sub_id": PAIR}, Reason.STS_SUBJECT_MISMATCH, id="a local name beside sub_id"
        ),
        pytest.param(LOGIN.issuer, {"sub": "local-7"}, Reason.STS_SUBJECT_MISMATCH, id="a local name (aud_sub)"),
    ],
)
async def test_the_user_is_proven_by_the_kept_name_or_by_sub_id_and_by_nothing_else(
    subject_issuer: str | None, lawful: dict[str, object], reason: Reason | None
) -> None:
    by = by_client(subject_issuer=subject_issuer)
    async with running(world(**lawful)) as one:
        if reason is None:
            await one.exchange.exchange(login_plan(by), by)
        else:
            assert await reason_of(one, login_plan(by), by) is reason


async def test_tokens_with_act_are_proven_by_act() -> None:
    by = by_client(actor=ActorForm.SUB)
    async with running(world(act={"sub": str(WRITER)})) as one:
        assert (await one.exchange.exchange(login_plan(by), by)).permit.token.actor_id == WRITER
    for act, reason in ((ABSENT, Reason.STS_NO_ACT), ({"sub": str(PLANNER)}, Reason.STS_ACTOR_MISMATCH)):
        async with running(world(act=act)) as one:
            assert await reason_of(one, login_plan(by), by) is reason


async def test_no_access_token_leaves_for_the_idp() -> None:
    async with running(world()) as one:
        assert await reason_of(one, plan(), policy()) is Reason.ISSUER_NOT_FOR_ROUTE
        of_users = by_client()
        assert of_users.entry is not None
        user = replace(of_users.entry.issuers[LOGIN.issuer], kind=LoginKind.ACCESS_TOKEN)
        by = replace(of_users, entry=replace(of_users.entry, issuers={LOGIN.issuer: user}))
        assert await reason_of(one, login_plan(by), by) is Reason.ISSUER_NOT_FOR_ROUTE
        assert one.sts.forms == []


def test_a_refusal_quotes_nothing_of_the_grant() -> None:
    asked = login_plan()
    steps = ADAPTER.exchange(wanted(ADAPTER, asked, subject_token_type=TOKEN_TYPE_ID_TOKEN, svid=None))
    next(steps)
    raw = LOGIN.mint({"iss": SECRET, "aud": SECRET}, LOGIN.header(typ="oauth-id-jag+jwt"))
    body = encode({"access_token": raw, "issued_token_type": ID_JAG, "token_type": "N_A"})
    with pytest.raises(Denied) as caught:
        steps.send(Answer(200, "application/json", body))
    assert SECRET not in f"{caught.value} {caught.value.detail}"
