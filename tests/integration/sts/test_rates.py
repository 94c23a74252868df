"""One workload floods a token service in a process of its own; the others are served."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import pytest

from sidecar.sts.keys import SigningKey
from tests.integration.sts.processes import Replica, fleet
from tests.integration.world import FRONT, PLANNER, World, until

pytestmark = pytest.mark.integration

BURST: Final = 20
AHEAD: Final = {"actor_rate": {"burst": BURST, "per_s": 1}, "exchange_rate": {"burst": 1000, "per_s": 100}}


async def test_an_actor_that_floods_is_refused_whatever_it_sends_and_another_is_served(world: World) -> None:
    async with fleet(world, **AHEAD) as running:
        replica = await running.start({int(time.time()) - 10: SigningKey.generate()})
        flood = asyncio.gather(*(running.clients.first(replica) for _ in range(2 * BURST)))
        lawful = [
            await running.clients.post(replica, PLANNER, {"grant_type": "client_credentials"}, "/token")
            for _ in range(5)
        ]
        answers = await flood
        rubbish = await running.clients.post(replica, FRONT, {"grant_type": "rubbish"}, "/token")
        statuses = [one.status for one in answers]
        assert BURST <= statuses.count(200) < 2 * BURST
        assert {one.reason for one in answers if one.status != 200} == {"overloaded"}
        assert {one.headers["retry-after"] for one in answers if one.status != 200} == {"1"}
        assert (rubbish.status, rubbish.reason) == (503, "overloaded")
        assert {one.reason for one in lawful} == {"target_unknown"}  # judged, not limited
        await refused(replica, statuses.count(503) + 1)
        metrics = await world.call(replica.probe, None, "/metrics", method="GET")
    records = [one for one in replica.records("token.exchange_refused") if one["reason"] == "overloaded"]
    assert {(one["peer"], one["detail"]) for one in records} == {(str(FRONT), "too many requests of one client")}
    assert f'result="overloaded"}} {len(records)}.0' in metrics.body.decode()


async def test_one_users_flood_leaves_the_actors_other_users_alone(world: World) -> None:
    async with fleet(world, exchange_rate={"burst": 2, "per_s": 1}) as running:
        replica = await running.start({int(time.time()) - 10: SigningKey.generate()})
        answer = await running.clients.first(replica)
        token = running.clients.token_of(answer)
        answers = [await running.clients.onward(replica, token) for _ in range(3)]
        assert [one.reason for one in answers] == [None, None, "overloaded"]
        other = running.clients.token_of(await running.clients.first(replica))
        assert (await running.clients.onward(replica, other)).status == 200


async def refused(replica: Replica, count: int) -> None:
    await until(
        lambda: sum(one["reason"] == "overloaded" for one in replica.records("token.exchange_refused")) >= count
    )
