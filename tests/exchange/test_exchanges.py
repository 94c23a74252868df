"""The token services of one workload, as one cache."""

from __future__ import annotations

from sidecar.exchange.exchanges import Exchanges
from tests.exchange.world import World, plan, policy, running
from tests.fakes.tokens import NOW


async def test_the_tokens_of_all_services_are_one_account() -> None:
    async with running(World()) as one, running(World()) as other:
        exchanges = Exchanges({"one": one.exchange, "other": other.exchange})
        assert (exchanges.bytes, exchanges.hits) == (0, 0)
        issued = await one.exchange.exchange(plan(), policy())
        await other.exchange.exchange(plan(), policy())
        assert one.exchange.cached(plan(), policy=policy(), now=NOW) is issued
        assert exchanges.bytes == one.exchange.tokens.bytes + other.exchange.tokens.bytes > 0
        assert exchanges.hits == one.exchange.tokens.hits + other.exchange.tokens.hits == 1
        assert exchanges.misses == one.exchange.tokens.misses + other.exchange.tokens.misses


async def test_each_service_gives_back_an_equal_part() -> None:
    async with running(World()) as one, running(World()) as other:
        exchanges = Exchanges({"one": one.exchange, "other": other.exchange})
        await one.exchange.exchange(plan(), policy())
        await other.exchange.exchange(plan(), policy())
        needed = one.exchange.tokens.bytes
        exchanges.shed(2 * needed)
        assert (len(one.exchange.tokens), len(other.exchange.tokens)) == (1, 1)
        exchanges.shed(2 * needed - 2)
        assert (len(one.exchange.tokens), len(other.exchange.tokens)) == (0, 0)
        assert exchanges.evicted == 2


async def test_a_policy_that_stops_the_tokens_of_one_service_leaves_those_of_another() -> None:
    async with running(World()) as one, running(World()) as other:
        exchanges = Exchanges({"one": one.exchange, "other": other.exchange})
        stopped = (await one.exchange.exchange(plan(), policy())).permit.token
        kept = await other.exchange.exchange(plan(), policy())
        exchanges.carry(1, 2, lambda token: token is stopped)
        assert one.exchange.cached(plan(), policy=policy(2), now=NOW) is None
        assert other.exchange.cached(plan(), policy=policy(2), now=NOW) is kept
