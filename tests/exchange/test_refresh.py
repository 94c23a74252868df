"""Tokens refreshed before their end, while the old one is in use. The subject token ends at NOW + 290."""

from __future__ import annotations

import asyncio

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.permit import IssuedPermit
from sidecar.identity.endpoint import Trouble
from tests.exchange.world import World, plan, policy, reason_of, running
from tests.fakes.lies import claims
from tests.fakes.tokens import NOW, PLANNER, WRITER

LASTS_S = 98  # the cached token of these tests: its exp is 100 s away
DUE = NOW + 79  # the last fifth of its life, in whole seconds


async def kept(world: World, exp: int = NOW + LASTS_S + 2) -> IssuedPermit:
    """Return the first token, and the next ones with this ``exp`` until changed."""
    world.sts.behaviour = claims(exp=exp)
    permit = (await world.exchange.exchange(plan(), policy())).permit
    world.sts.behaviour = claims(exp=NOW + 200)
    return permit


def call(world: World, now: int, *, number: int = 1) -> IssuedPermit | None:
    world.clock.now = now
    issued = world.exchange.cached(plan(), policy=policy(number), now=now)
    return None if issued is None else issued.permit


async def landed(world: World) -> None:
    """Wait until all exchanges have ended."""
    async with asyncio.timeout(5):
        while world.exchange.under_way:  # noqa: ASYNC110 - nobody tells of a flight that nobody waits for
            await asyncio.sleep(0)


async def test_a_token_used_in_the_last_part_of_its_life_serves_while_its_successor_is_fetched() -> None:
    async with running(World()) as world:
        first = await kept(world)
        world.sts.hold()
        assert call(world, DUE) is first
        await world.sts.wait_for_requests(2)
        assert call(world, DUE) is first
        world.sts.release()
        await landed(world)
        second = call(world, DUE)
        assert second is not None
        assert second.token.jti == "issued-2"
        assert world.metrics.token_refresh == {"ok": 1, "failed": 0, "dropped": 0, "no_longer": 0}
        assert world.metrics.token_cache == {"hit": 3, "miss": 0, "joined": 0}


async def test_before_that_nobody_is_asked() -> None:
    async with running(World()) as world:
        first = await kept(world)
        assert call(world, DUE - 1) is first
        assert world.exchange.under_way == 0


async def test_however_many_calls_there_are_one_refresh_is_made() -> None:
    async with running(World()) as world:
        first = await kept(world)
        world.sts.hold()
        assert {call(world, DUE + late) for late in range(4) for _ in range(100)} == {first}
        await world.sts.wait_for_requests(2)
        world.sts.release()
        await landed(world)
        assert len(world.sts.forms) == 2


async def test_while_one_refresh_is_still_in_the_air_no_other_begins() -> None:
    async with running(World()) as world:
        await kept(world)
        world.sts.hold()
        call(world, DUE)
        await world.sts.wait_for_requests(2)
        call(world, DUE + 4)  # the time of the next retry after a failure
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.sts.release()
        await landed(world)
        assert len(world.sts.forms) == 2
        assert world.metrics.token_refresh["ok"] == 1


async def test_a_refresh_that_fails_costs_no_call_anything_and_is_tried_again_later() -> None:
    async with running(World(retries=0)) as world:
        first = await kept(world)
        world.sts.errors = [Unavailable(Reason.STS_TIMEOUT, Trouble.TIMEOUT)]
        assert call(world, DUE) is first
        await landed(world)
        assert world.metrics.token_refresh["failed"] == 1
        assert world.exchange.last_refusal == (DUE, Reason.STS_TIMEOUT, Trouble.TIMEOUT)
        assert call(world, DUE + 3) is first  # 19 s were left: a retry after 4 of them
        assert world.exchange.under_way == 0
        assert call(world, DUE + 4) is first
        await landed(world)
        assert world.metrics.token_refresh["ok"] == 1
        refused, again = [record for record in await world.records() if record["reason"] != "ok"], world.sts.forms
        assert [record["event"] for record in refused] == ["token.exchange_refused"]
        assert len(again) == 3


async def test_when_every_refresh_has_failed_the_old_token_serves_to_its_end_and_no_longer() -> None:
    async with running(World(retries=0)) as world:
        first = await kept(world)
        world.sts.errors = [Unavailable(Reason.STS_UNAVAILABLE, Trouble.UNREACHABLE) for _ in range(100)]
        for now in range(DUE, NOW + LASTS_S):
            assert call(world, now) is first
            await landed(world)
        assert 3 <= world.metrics.token_refresh["failed"] <= 8
        assert call(world, NOW + LASTS_S) is None
        assert await reason_of(world) is Reason.STS_UNAVAILABLE


async def test_a_call_that_comes_when_the_old_token_has_ended_joins_the_refresh() -> None:
    async with running(World()) as world:
        first = await kept(world)
        world.sts.hold()
        assert call(world, NOW + LASTS_S - 1) is first
        await world.sts.wait_for_requests(2)
        assert call(world, NOW + LASTS_S) is None
        waiting = asyncio.create_task(world.exchange.exchange(plan(), policy()))
        await asyncio.sleep(0)
        world.sts.release()
        assert (await waiting).permit.token.jti == "issued-2"
        assert len(world.sts.forms) == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.exchange.invalidate(), id="invalidated"),
        pytest.param(lambda world: (world.source.become(None), world.source.become(WRITER)), id="withdrawn and back"),
        pytest.param(lambda world: world.source.become(PLANNER), id="another SPIFFE ID"),
        pytest.param(lambda world: call(world, DUE, number=2), id="another policy"),
    ],
)
async def test_a_refresh_that_began_before_an_invalidation_is_not_used_after_it(change: object) -> None:
    async with running(World()) as world:
        await kept(world)
        world.sts.hold()
        call(world, DUE)
        await world.sts.wait_for_requests(2)
        assert callable(change)
        change(world)
        world.sts.release()
        await landed(world)
        assert len(world.exchange.tokens) == 0
        assert call(world, DUE, number=2) is None
        assert world.metrics.token_refresh == {"ok": 0, "failed": 0, "dropped": 1, "no_longer": 0}


async def test_a_token_that_ends_with_its_subject_token_is_not_refreshed() -> None:
    async with running(World()) as world:
        first = await kept(world, exp=NOW + 290)
        assert call(world, NOW + 287) is first
        assert world.exchange.under_way == 0


async def test_a_token_service_that_gives_no_longer_token_is_not_asked_again() -> None:
    async with running(World()) as world:
        first = await kept(world)
        world.sts.behaviour = claims(exp=NOW + LASTS_S + 2)
        for now in range(DUE, NOW + LASTS_S):
            assert call(world, now) is first
            await landed(world)
        assert len(world.sts.forms) == 2
        assert world.metrics.token_refresh == {"ok": 0, "failed": 0, "dropped": 0, "no_longer": 1}


async def test_calls_that_wait_for_their_token_come_before_refreshes() -> None:
    async with running(World(max_flights=2)) as world:
        first = await kept(world)
        world.sts.hold()
        other = asyncio.create_task(world.exchange.exchange(plan(jti="another"), policy()))
        await world.sts.wait_for_requests(2)
        assert call(world, DUE) is first
        assert world.exchange.under_way == 1
        world.sts.release()
        await other
        assert call(world, DUE) is first
        assert world.exchange.under_way == 1
        await landed(world)
        assert world.metrics.token_refresh["ok"] == 1


async def test_a_token_the_next_hop_rejected_is_not_served_again_by_its_refresh() -> None:
    async with running(World()) as world:
        first = await kept(world)
        world.sts.hold()
        call(world, DUE)
        await world.sts.wait_for_requests(2)
        world.exchange.reject(first)
        world.sts.release()
        await landed(world)
        second = call(world, DUE)
        assert second is not None
        assert second is not first


async def test_nothing_is_refreshed_once_closed() -> None:
    async with running(World()) as world:
        await kept(world)
        await world.exchange.close()
        call(world, DUE)
        assert world.exchange.under_way == 0
