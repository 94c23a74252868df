"""Logins that ask a token service at the same time: bounded, and beside the exchanges of users who have logged in."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from delegation_core.errors import Reason
from delegation_core.login import plan_login
from sidecar.exchange.cache import Issued
from sidecar.exchange.failover import Unsent
from tests.exchange.test_logins import reason_of_login, world_of
from tests.exchange.world import running
from tests.fakes.login_counterparts import LyingUserServer, allowing, log_in


async def test_logins_in_flight_are_bounded_apart_from_exchanges() -> None:
    async with running(world_of("obo-draft-02", max_flights=16)) as world:
        by = allowing()
        logins, plan = world.exchange.logins, plan_login("crm", policy=by)
        begin = partial(logins.begin, plan, redirect_uri="https://app.example/back", reason="r")
        complete = partial(logins.complete, code="c0de", plan=plan, policy=by)
        begun = [await begin() for _ in range(5)]
        world.sts.hold()
        first = asyncio.ensure_future(complete(begun.pop()))
        await world.sts.wait_for_requests(1)
        await begin()
        in_flight = [first, *[asyncio.ensure_future(complete(begun.pop())) for _ in range(3)]]
        await world.sts.wait_for_requests(4)
        for one_more in (begin, partial(complete, begun[0])):
            with pytest.raises(Unsent) as caught:
                await one_more()
            assert caught.value.reason is Reason.OVERLOADED
        assert Reason.OVERLOADED.answer.status == 503
        assert Reason.OVERLOADED.answer.retry_after_s
        assert len(world.sts.forms) == 4, "nothing of the fifth has left"
        assert world.metrics.exchanges == {}
        assert world.exchange.under_way == 0
        world.sts.release()
        assert all(isinstance(one, Issued) for one in await asyncio.gather(*in_flight))
        assert isinstance(await complete(begun[0]), Issued), "its code is still good"
        await begin()


async def test_none_begins_while_half_of_the_places_are_taken_and_users_who_come_back_find_the_rest() -> None:
    async with running(world_of("agent-grant-draft", max_flights=16)) as world:
        server = world.sts
        assert isinstance(server, LyingUserServer)
        by = allowing()
        logins, plan = world.exchange.logins, plan_login("crm", policy=by)
        begin = partial(logins.begin, plan, redirect_uri=None, reason="r")
        begun = await begin()
        server.may_ask_users.clear()
        in_flight = [asyncio.ensure_future(begin()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unsent) as caught:
            await begin()
        assert caught.value.reason is Reason.OVERLOADED
        assert isinstance(await logins.complete(begun, None, plan=plan, policy=by), Issued)
        server.may_ask_users.set()
        await asyncio.gather(*in_flight)
        await begin()


async def test_logins_that_were_given_up_give_their_places_back() -> None:
    async with running(world_of("obo-draft-02", max_flights=1)) as world:
        world.sts.hold()
        given_up = asyncio.ensure_future(log_in(world))
        await world.sts.wait_for_requests(1)
        assert await reason_of_login(world) is Reason.OVERLOADED
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        world.sts.release()
        assert isinstance(await log_in(world), Issued)
