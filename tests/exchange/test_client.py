from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import plan_own
from delegation_core.verify import thumbprint_of
from sidecar.exchange.cache import Issued
from sidecar.exchange.client import Fact
from sidecar.identity.endpoint import Trouble
from tests.exchange.world import World, plan, policy, reason_of, route, running
from tests.fakes.lies import claims, members
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.fakes.tokens import ISSUER, NOW, PLANNER, WRITER, TokenMint


async def ask(world: World, **claims: Any) -> Issued:
    return await world.exchange.exchange(plan(**claims), policy())


async def test_the_first_exchange_serves_the_calls_after_it() -> None:
    async with running(World()) as world:
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        issued = await ask(world)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued
        assert world.metrics.token_cache == {"hit": 1, "miss": 1, "joined": 0}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: plan(sub="user-1"), id="subject"),
        pytest.param(lambda: plan(jti="token-2"), id="subject token"),
        pytest.param(lambda: plan(route(audience="spiffe://acme.example/tool/crm2")), id="audience"),
        pytest.param(lambda: plan(route(scopes=("docs.read",))), id="scope"),
        pytest.param(lambda: plan(route("mail")), id="route"),
    ],
)
async def test_a_token_is_for_its_own_plan_alone(other: object) -> None:
    async with running(World()) as world:
        await ask(world)
        assert callable(other)
        assert world.exchange.cached(other(), policy=policy(), now=NOW) is None


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        pytest.param(claims(), NOW + 287, id="the subject token's end"),
        pytest.param(claims(exp=NOW + 60), NOW + 57, id="its own end"),
        pytest.param(members(expires_in=30), NOW + 27, id="the end the answer gives"),
        pytest.param(members(expires_in=1000), NOW + 287, id="never later than the token's"),
    ],
)
async def test_a_token_is_used_until_shortly_before_its_end(answer: object, last: int) -> None:
    async with running(World()) as world:
        world.sts.behaviour = answer  # type: ignore[assignment]
        issued = await ask(world)
        assert world.exchange.cached(plan(), policy=policy(), now=last) is issued
        assert world.exchange.cached(plan(), policy=policy(), now=last + 1) is None


async def test_a_thousand_calls_for_one_token_make_one_exchange() -> None:
    async with running(World()) as world:
        world.sts.hold()
        calls = [asyncio.create_task(ask(world)) for _ in range(1000)]
        await world.sts.wait_for_requests(1)
        world.sts.release()
        permits = await asyncio.gather(*calls)
        assert len(world.sts.forms) == 1
        assert len({id(issued) for issued in permits}) == 1
        assert world.metrics.token_cache["joined"] == 999


async def test_two_subjects_never_share_a_flight() -> None:
    async with running(World()) as world:
        world.sts.hold()
        subjects = [f"user-{number % 2}" for number in range(64)]
        calls = [asyncio.create_task(ask(world, sub=subject)) for subject in subjects]
        await world.sts.wait_for_requests(2)
        world.sts.release()
        assert [issued.permit.token.subject for issued in await asyncio.gather(*calls)] == subjects
        assert len(world.sts.forms) == 2


async def test_a_flight_survives_the_caller_who_started_it() -> None:
    async with running(World()) as world:
        world.sts.hold()
        first, second = asyncio.create_task(ask(world)), asyncio.create_task(ask(world))
        await world.sts.wait_for_requests(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.sts.release()
        issued = await second
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued
        assert len(world.sts.forms) == 1


async def test_a_flight_nobody_waits_for_any_more_still_ends_well() -> None:
    async with running(World()) as world:
        world.sts.hold()
        only = asyncio.create_task(ask(world))
        await world.sts.wait_for_requests(1)
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        world.sts.release()
        await ask(world)  # joins it, or finds its result
        assert len(world.sts.forms) == 1


async def test_a_refusal_reaches_everybody_who_waits_and_is_asked_for_anew() -> None:
    async with running(World()) as world:
        world.sts.hold()
        world.sts.errors = [Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)]
        calls = [asyncio.create_task(reason_of(world)) for _ in range(10)]
        await world.sts.wait_for_requests(1)
        world.sts.release()
        assert set(await asyncio.gather(*calls)) == {Reason.STS_TIMEOUT}
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        await ask(world)
        assert len(world.sts.forms) == 2


async def test_everybody_gets_an_error_of_their_own() -> None:
    async with running(World()) as world:
        world.sts.hold()
        world.sts.errors = [Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)]
        calls = [asyncio.create_task(ask(world)) for _ in range(2)]
        await world.sts.wait_for_requests(1)
        world.sts.release()
        one, other = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(one, SidecarError)
        assert one is not other


async def test_calls_are_told_apart_by_their_subject_not_by_its_tokens_and_targets() -> None:
    own = replace(route(), token="self")
    by = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    async with running(World()) as world:
        await ask(world)
        await ask(world, jti="token-2")
        await world.exchange.exchange(plan(route("mail")), policy())
        await world.exchange.exchange(plan(route(scopes=("docs.read",))), policy())
        await ask(world, sub="user-1")
        world.sts.behaviour = lambda _sts, _form: Reply(400, body=b"{}")
        await reason_of(world, plan_own(own, policy=by, now=NOW), by)
    alice = (ISSUER, "user-4711")
    assert world.sts.subjects == [alice, alice, alice, alice, (ISSUER, "user-1"), WRITER]


async def test_exchanges_under_way_are_bounded() -> None:
    async with running(World(max_flights=2)) as world:
        world.sts.hold()
        calls = [asyncio.create_task(ask(world, jti=f"token-{number}")) for number in range(2)]
        await world.sts.wait_for_requests(2)
        assert await reason_of(world, plan(jti="token-2")) is Reason.OVERLOADED
        joined = asyncio.create_task(ask(world, jti="token-1"))
        world.sts.release()
        await asyncio.gather(*calls, joined)
        await ask(world, jti="token-2")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.source.become(None), id="identity withdrawn"),
        pytest.param(lambda world: world.source.become(PLANNER), id="another SPIFFE ID"),
        pytest.param(lambda world: world.exchange.invalidate(), id="invalidated"),
    ],
)
async def test_what_was_kept_ends_with_what_it_depends_on(change: object) -> None:
    async with running(World()) as world:
        await ask(world)
        assert callable(change)
        change(world)
        assert len(world.exchange.tokens) == 0
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        world.source.become(WRITER)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None


async def test_what_was_kept_ends_with_the_policy() -> None:
    async with running(World()) as world:
        await ask(world)
        assert world.exchange.cached(plan(), policy=policy(2), now=NOW) is None
        assert world.exchange.cached(plan(), policy=policy(1), now=NOW) is None


async def test_what_was_kept_ends_with_the_issuers_keys() -> None:
    async with running(World()) as world:
        await ask(world)
        world.jwks.document = TokenMint(kid="next", key=5).jwks
        await world.keys.wait_for_key(ISSUER, "next")
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None


def still_hold(facts: Sequence[Fact]) -> bool:
    return all(getattr(of, name) is value for of, name, value in facts)


async def new_keys(world: World) -> None:
    world.jwks.document = TokenMint(kid="next", key=5).jwks
    await world.keys.wait_for_key(ISSUER, "next")


async def invalidated(world: World) -> None:
    world.exchange.invalidate()


async def withdrawn(world: World) -> None:
    world.source.become(None)


async def another_policy(world: World) -> None:
    world.exchange.cached(plan(), policy=policy(2), now=NOW)


@pytest.mark.parametrize("change", [new_keys, invalidated, withdrawn, another_policy])
async def test_the_facts_that_tokens_hold_by_change_with_what_ends_them(
    change: Callable[[World], Coroutine[Any, Any, None]],
) -> None:
    async with running(World()) as world:
        assert world.exchange.holds_by() is None  # there is no token yet
        await ask(world)
        facts = world.exchange.holds_by()
        assert facts is not None
        for _ in range(2):
            world.exchange.cached(plan(), policy=policy(), now=NOW)
            assert still_hold(facts)
        await change(world)
        assert not still_hold(facts)


async def test_tokens_of_another_identity_hold_by_nothing() -> None:
    async with running(World()) as world:
        await ask(world)
        world.source.become(PLANNER)
        assert world.exchange.holds_by() is None


async def test_a_renewed_identity_keeps_its_tokens() -> None:
    async with running(World()) as world:
        issued = await ask(world)
        world.source.become(WRITER)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.exchange.invalidate(), id="invalidated"),
        pytest.param(lambda world: (world.source.become(None), world.source.become(WRITER)), id="withdrawn and back"),
    ],
)
async def test_what_was_asked_for_before_an_invalidation_is_not_used_after_it(change: object) -> None:
    async with running(World()) as world:
        world.sts.hold()
        call = asyncio.create_task(ask(world))
        await world.sts.wait_for_requests(1)
        assert callable(change)
        change(world)
        world.sts.release()
        issued = await call
        assert issued.permit.token.jti == "issued-2"
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued


@pytest.mark.parametrize("spiffe_id", [pytest.param(None, id="withdrawn"), pytest.param(PLANNER, id="another")])
async def test_a_token_that_arrives_after_the_end_of_our_identity_is_not_used(spiffe_id: object) -> None:
    async with running(World()) as world:
        world.sts.hold()
        call = asyncio.create_task(reason_of(world))
        await world.sts.wait_for_requests(1)
        world.source.become(spiffe_id)  # type: ignore[arg-type]
        world.sts.release()
        assert await call is Reason.NOT_READY
        assert len(world.exchange.tokens) == 0


async def test_expired_tokens_are_freed_and_the_rest_on_demand() -> None:
    async with running(World()) as world:
        issued = await ask(world)
        world.exchange.sweep(issued.usable_until - 1)
        assert len(world.exchange.tokens) == 1
        world.exchange.sweep(issued.usable_until)
        assert len(world.exchange.tokens) == 0
        await ask(world)
        world.exchange.tokens.shed(world.exchange.tokens.bytes)
        assert len(world.exchange.tokens) == 1
        world.exchange.tokens.shed(0)
        assert (len(world.exchange.tokens), world.exchange.tokens.bytes) == (0, 0)


async def test_an_invalidation_between_the_landing_and_the_caller_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(World()) as world:
        count = world.metrics.exchange

        def invalidate_once(*arguments: Any) -> None:
            monkeypatch.setattr(world.metrics, "exchange", count)
            world.exchange.invalidate()

        monkeypatch.setattr(world.metrics, "exchange", invalidate_once)
        assert (await ask(world)).permit.token.jti == "issued-2"


async def test_who_asks_after_an_invalidation_does_not_join_what_began_before() -> None:
    async with running(World()) as world:
        world.sts.hold()
        before = asyncio.create_task(ask(world))
        await world.sts.wait_for_requests(1)
        world.exchange.invalidate()
        after = asyncio.create_task(ask(world))
        await world.sts.wait_for_requests(2)
        world.sts.release()
        assert (await after).permit.token.jti == "issued-2"
        assert (await before).permit.token.jti == "issued-2"


async def test_who_missed_the_landing_by_a_moment_does_not_ask_again() -> None:
    async with running(World()) as world:
        issued = await ask(world)
        assert await ask(world) is issued
        assert len(world.sts.forms) == 1


async def test_two_policies_never_share_a_flight() -> None:
    async with running(World()) as world:
        world.sts.hold()
        calls = [asyncio.create_task(world.exchange.exchange(plan(), policy(number))) for number in (1, 2)]
        await world.sts.wait_for_requests(2)
        world.sts.release()
        await asyncio.gather(*calls)
        assert len(world.sts.forms) == 2


async def test_when_everything_keeps_changing_the_call_is_refused() -> None:
    async with running(World()) as world:
        honest = world.sts.behaviour

        def change_and_answer(*arguments: object) -> object:
            world.exchange.invalidate()
            return honest(*arguments)  # type: ignore[arg-type]

        world.sts.behaviour = change_and_answer  # type: ignore[assignment]
        assert await reason_of(world) is Reason.STS_UNAVAILABLE
        assert len(world.sts.forms) == 3


@pytest.mark.parametrize("spiffe_id", [pytest.param(None, id="none"), pytest.param(PLANNER, id="not the policy's")])
async def test_without_the_policys_identity_nobody_is_asked(spiffe_id: object) -> None:
    async with running(World()) as world:
        world.source.become(spiffe_id)  # type: ignore[arg-type]
        assert await reason_of(world) is Reason.NOT_READY
        assert world.sts.forms == []


async def test_a_rejected_token_is_exchanged_anew_once_in_ten_seconds() -> None:
    async with running(World()) as world:
        first = await ask(world)
        assert world.exchange.reject(first.permit)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        second = await ask(world)
        assert not world.exchange.reject(second.permit)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is second
        world.monotonic.now += 10
        assert world.exchange.reject(second.permit)


async def test_closing_ends_what_is_under_way() -> None:
    async with running(World()) as world:
        world.sts.hold()
        call = asyncio.create_task(reason_of(world))
        await world.sts.wait_for_requests(1)
        await world.exchange.close()
        assert await call is Reason.NOT_READY
        assert await reason_of(world) is Reason.NOT_READY
        assert world.sts.closed


def thumbprint(world: World) -> str:
    assert world.source.current is not None
    return thumbprint_of(world.source.current.svid.leaf_sha256)


def bind(world: World) -> None:
    """Let the token service bind each token to the SVID that we show when it answers."""
    world.sts.behaviour = lambda sts, form: claims(cnf={"x5t#S256": thumbprint(world)})(sts, form)


async def test_a_token_that_is_bound_to_our_svid_is_kept_until_that_is_renewed() -> None:
    async with running(World()) as world:
        bind(world)
        issued = await ask(world)
        assert issued.bound_to == thumbprint(world)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued
        world.source.renew_bundles()  # the SVID stays
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued
        world.source.become(WRITER)
        assert not world.exchange.usable(issued)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is None
        assert len(world.exchange.tokens) == 0
        again = await ask(world)
        assert again.bound_to == thumbprint(world) != issued.bound_to
        assert len(world.sts.forms) == 2


async def test_a_token_that_is_bound_to_nothing_outlives_a_renewal() -> None:
    async with running(World()) as world:
        issued = await ask(world)
        assert issued.bound_to is None
        world.source.become(WRITER)
        assert world.exchange.cached(plan(), policy=policy(), now=NOW) is issued


@pytest.mark.parametrize("cnf", [{"x5t#S256": "A" * 43}, {"jkt": "x"}, {}, "x", None], ids=str)
async def test_a_token_that_is_bound_to_somebody_else_is_refused(cnf: object) -> None:
    async with running(World()) as world:
        world.sts.behaviour = claims(cnf=cnf)
        assert await reason_of(world) is Reason.STS_BAD_RESPONSE
        bind(world)
        assert (await ask(world)).bound_to == thumbprint(world)


async def test_a_renewal_during_an_exchange_gives_no_caller_a_token_of_the_svid_before() -> None:
    async with running(World()) as world:
        before = thumbprint(world)

        def late_answer(sts: LyingSts, form: Form) -> Reply:
            return claims(cnf={"x5t#S256": before if len(sts.forms) == 1 else thumbprint(world)})(sts, form)

        world.sts.behaviour = late_answer
        world.sts.hold()
        callers = [asyncio.create_task(ask(world)) for _ in range(3)]
        await world.sts.wait_for_requests(1)
        world.source.become(WRITER)
        late = asyncio.create_task(ask(world))
        world.sts.release()
        issued = await asyncio.gather(*callers, late)
        assert {one.bound_to for one in issued} == {thumbprint(world)} != {before}
        assert len(world.sts.forms) == 2
