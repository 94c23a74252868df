from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.decide import decide_entry
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.login_issuer import LoginKind
from delegation_core.plan import Plan, plan_outbound
from delegation_core.policy import Policy
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from sidecar.exchange import conversation
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.endpoint import EndpointError, Trouble
from tests.exchange.world import LOGIN, SUB_ID, World, plan, policy, reason_of, route, running, subject_of
from tests.fakes.lies import CONTENT_LIES, claims, members, token
from tests.fakes.lying_sts import SECRET, Behaviour, Form, LyingSts, Reply
from tests.fakes.tokens import ABSENT, CRM, ISSUER, NOW, PLANNER, WRITER, TokenMint, encode


async def test_an_honest_answer_becomes_a_permit() -> None:
    async with running(World()) as world:
        issued = await world.exchange.exchange(plan(), policy())
        assert issued.permit.token.audience == CRM
        assert issued.permit.token.subject == "user-4711"
        assert issued.permit.token.actor_id == WRITER
        assert issued.permit.token.chain is not None
        assert issued.permit.token.chain.subjects == (WRITER, PLANNER)


async def test_the_request_names_subject_actor_target_and_scope() -> None:
    async with running(World()) as world:
        wanted = plan()
        await world.exchange.exchange(wanted, policy())
        (form,) = world.sts.forms
        assert form.pop("actor_token").count(".") == 2
        assert form == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject_of(wanted).raw,
            "subject_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "actor_token_type": TOKEN_TYPE_JWT,
            "requested_token_type": TOKEN_TYPE_ACCESS_TOKEN,
            "audience": str(CRM),
            "scope": "crm.read",
        }
        assert world.source.audiences == [ISSUER]


@pytest.mark.parametrize(("lie", "reason"), CONTENT_LIES.values(), ids=CONTENT_LIES.keys())
async def test_a_lie_is_refused_by_its_name_and_nothing_is_kept(lie: Behaviour, reason: Reason) -> None:
    async with running(World()) as world:
        world.sts.behaviour = lie
        assert await reason_of(world) is reason
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        assert len(world.sts.forms) == 1
        assert world.jwks.fetches <= (2 if reason is Reason.STS_SIGNATURE else 1)
        (record,) = await world.records()
        assert record["event"] == "token.exchange_refused"
        assert record["reason"] == reason
        assert SECRET.encode() not in world.sink.written
        assert world.metrics.exchanges == {(ISSUER, reason): 1}


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(claims(exp=NOW + 290), id="as long as the subject token"),
        pytest.param(claims(exp=NOW + 1), id="a shorter life"),
        pytest.param(claims(aud=[str(CRM)]), id="the audience in a list of one"),
        pytest.param(claims(parent_jti=ABSENT), id="no parent"),
        pytest.param(members(scope=ABSENT), id="the scope is as asked for"),
        pytest.param(members(expires_in=ABSENT), id="no lifetime beside the token's"),
        pytest.param(members(expires_in=10**6), id="a longer lifetime beside the token's"),
        pytest.param(members(token_type="bearer"), id="bearer in lower case"),
        pytest.param(members(unheard_of={"x": 1}), id="an unknown member"),
        pytest.param(token(lambda sts, form: sts.mint.mint(sts.claims(form, unheard_of=1))), id="an unknown claim"),
    ],
)
async def test_what_is_beside_the_point_is_no_lie(truth: Behaviour) -> None:
    async with running(World()) as world:
        world.sts.behaviour = truth
        issued = await world.exchange.exchange(plan(), policy())
        assert (issued.permit.token.audience, issued.permit.token.actor_id) == (CRM, WRITER)


async def test_a_key_the_sts_began_to_use_is_fetched_once() -> None:
    async with running(World()) as world:
        world.sts.mint = TokenMint(kid="next", key=5)
        world.jwks.document = world.sts.mint.jwks
        issued = await world.exchange.exchange(plan(), policy())
        assert issued.permit.token.issuer == ISSUER
        assert world.jwks.fetches == 2
        assert len(world.sts.forms) == 1


async def test_keys_that_cannot_be_had_are_no_lie_of_the_token_service() -> None:
    async with running(World()) as world:
        world.sts.mint = TokenMint(kid="next", key=5)
        world.jwks.error = EndpointError(Trouble.UNREACHABLE)
        assert await reason_of(world) is Reason.KEYS_UNAVAILABLE


@pytest.mark.parametrize("reason", [Reason.NOT_READY, Reason.STS_IDENTITY, Reason.STS_TIMEOUT, Reason.STS_TOO_LARGE])
async def test_a_call_that_failed_with_any_other_reason_is_not_tried_again(reason: Reason) -> None:
    kind = Unavailable if reason in (Reason.NOT_READY, Reason.STS_TIMEOUT) else Denied
    async with running(World()) as world:
        world.sts.errors = [kind(reason)]
        assert await reason_of(world) is reason
        assert len(world.sts.forms) == 1


@pytest.mark.parametrize(("retries", "failures", "requests"), [(0, 1, 1), (1, 1, 2), (1, 2, 2), (3, 3, 4)])
async def test_a_connection_that_fails_before_any_answer_is_tried_again_within_bounds(
    retries: int, failures: int, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "FIRST_RETRY_S", 0.001)
    async with running(World(retries=retries)) as world:
        world.sts.errors = [Unavailable(Reason.STS_UNAVAILABLE, Trouble.UNREACHABLE) for _ in range(failures)]
        if failures > retries:
            assert await reason_of(world) is Reason.STS_UNAVAILABLE
        else:
            await world.exchange.exchange(plan(), policy())
        assert len(world.sts.forms) == requests


async def test_an_exchange_has_one_deadline_for_everything() -> None:
    async with running(World(timeout_s=0.05)) as world, asyncio.timeout(1):
        world.sts.hold()
        assert await reason_of(world) is Reason.STS_TIMEOUT
        world.sts.release()


async def test_waiting_for_the_issuers_keys_counts_too() -> None:
    async with running(World(timeout_s=0.05)) as world, asyncio.timeout(1):
        world.sts.mint = TokenMint(kid="next", key=5)
        world.jwks.hold()
        assert await reason_of(world) is Reason.STS_TIMEOUT


async def test_without_a_jwt_svid_nobody_is_asked() -> None:
    async with running(World()) as world:
        world.source.jwt_refused = True
        assert await reason_of(world) is Reason.NOT_READY
        assert world.sts.forms == []


def _login_plan(by: Policy, **changes: object) -> Plan:
    groups: dict[str, object] = {"sub": "4711", "aud": "front", "groups": ["sales"], "act": ABSENT, **changes}
    bearer = LOGIN.mint(LOGIN.claims(**groups), LOGIN.header(typ="JWT"))
    delegation = decide_entry(parse_bearer(bearer), key=LOGIN.key, policy=by, now=NOW)
    return plan_outbound(delegation, route(), policy=by, now=NOW)


@pytest.mark.parametrize(
    ("kind", "token_type"),
    [(LoginKind.ID_TOKEN, TOKEN_TYPE_ID_TOKEN), (LoginKind.ACCESS_TOKEN, TOKEN_TYPE_ACCESS_TOKEN)],
)
async def test_a_login_starts_a_chain_with_the_kind_of_token_its_issuer_is_said_to_give(
    kind: LoginKind, token_type: str
) -> None:
    by = policy(kind=kind)  # under one profile: its name does not matter
    async with running(World()) as world:
        world.sts.behaviour = claims(sub_id=SUB_ID, act={"sub": str(WRITER)}, sub="4711")
        issued = await world.exchange.exchange(_login_plan(by, client_id=ABSENT, azp="front"), by)
        assert world.sts.forms[0]["subject_token_type"] == token_type
        assert issued.permit.token.chain is not None
        assert issued.permit.token.chain.depth == 1


async def test_a_first_token_that_outlives_the_login_is_not_used_after_the_login() -> None:
    async with running(World()) as world:
        lawful = policy()
        assert lawful.entry is not None
        by = replace(lawful, entry=replace(lawful.entry, delegation_life_s=3600, first_token_life_s=3600))

        def long_lived(sts: LyingSts, form: Form) -> Reply:
            issued = sts.mint.mint(sts.claims(form, sub_id=SUB_ID, sub="4711", exp=NOW + 3600))
            return Reply(body=encode(sts.members(form, issued, expires_in=3600)))

        world.sts.behaviour = long_lived
        wanted = _login_plan(by, client_id=ABSENT, azp="front")
        issued = await world.exchange.exchange(wanted, by)
        assert issued.permit.token.expires_at == NOW + 3600
        assert world.exchange.cached(wanted, policy=by, now=NOW + 287) is issued
        assert world.exchange.cached(wanted, policy=by, now=NOW + 288) is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"retries": 4}, "retries"),
        ({"max_flights": 0}, "max_flights"),
        ({"max_response_bytes": 0}, "max_response_bytes"),
        ({"adapter": "unheard-of"}, "adapter"),
        ({"token_endpoint": "http://sts.example/token"}, "url"),
        ({"token_endpoint": "https://sts.example/token"}, "tls"),
    ],
)
def test_unusable_settings_are_named(settings: dict[str, object], field: str) -> None:
    lawful: dict[str, object] = {"issuer": ISSUER, "token_endpoint": "http://127.0.0.1/token"}
    with pytest.raises(ValueError, match=field):
        ExchangeSettings(**{**lawful, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"retries": 0}, {"retries": 3}, {"max_flights": 1}, {"max_response_bytes": 1}])
def test_settings_at_their_limits_are_usable(settings: dict[str, int]) -> None:
    made = ExchangeSettings(issuer=ISSUER, token_endpoint="http://127.0.0.1/token", **settings)  # type: ignore[arg-type]
    assert {name: getattr(made, name) for name in settings} == settings


async def test_cancelling_does_not_turn_into_an_answer() -> None:
    async with running(World()) as world:
        world.sts.hold()
        waiter = asyncio.create_task(world.exchange.exchange(plan(), policy()))
        await world.sts.wait_for_requests(1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        world.sts.release()
