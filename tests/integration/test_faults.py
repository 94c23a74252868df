"""Faults, one at a time, under lawful requests at a steady pace: nothing unlawful passes, all is well afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from delegation_core.spiffe_id import TrustDomain
from tests.integration.world import (
    ISSUER,
    PARTNER,
    PATIENCE_S,
    PLANNER,
    START_S,
    WRITER,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
    whole_lines,
)

pytestmark = pytest.mark.integration

PACE_S: Final = 0.02  # 50 requests a second
HELD: Final = 15  # requests while the fault lasts


class Steady:
    """Calls at a steady pace until stopped, each time on a new connection, and counts the answers."""

    def __init__(self, world: World, port: int, context: ssl.SSLContext) -> None:
        self._world = world
        self._port = port
        self._context = context
        self.told: Counter[str] = Counter()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as asking:
            while True:
                asking.create_task(self._ask())
                await asyncio.sleep(PACE_S)

    async def _ask(self) -> None:
        try:
            answer = await self._world.call(self._port, self._context, headers=bearer(mint()))
        except (OSError, asyncio.IncompleteReadError):
            self.told["no connection"] += 1
        else:
            self.told["served" if answer.status == 200 else answer.reason or "cut"] += 1

    async def hold(self) -> Counter[str]:
        """Count the answers to the next requests."""
        before = self.told.copy()
        await until(lambda: (self.told - before).total() >= HELD)
        return self.told - before


@asynccontextmanager
async def under_load(world: World, **keys: Any) -> AsyncIterator[tuple[Sidecar, Steady]]:
    settings = world.settings()
    settings["issuers"][0] |= {"refresh_s": 0.2, "cooldown_s": 0.2, "timeout_s": 0.5, **keys}
    sidecar = await world.sidecar(WRITER, settings)
    steady = Steady(world, sidecar.inbound, calling(await world.source(PLANNER), WRITER))
    asking = asyncio.get_running_loop().create_task(steady.run())
    try:
        await until(lambda: steady.told["served"] >= 3)
        yield sidecar, steady
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def unlawful_is_refused(world: World, sidecar: Sidecar) -> None:
    """A call without delegation never passes, whatever is broken."""
    planner = calling(await world.source(PLANNER), WRITER)
    before = len(world.agent.requests)
    try:
        answer = await world.call(sidecar.inbound, planner, headers=bearer(mint({"sub": "mallory", "act": None})))
    except OSError:
        return
    assert answer.status != 200
    assert not any(b"mallory" in head for head, _ in world.agent.requests[before:])


KEY_FAULTS: Final = {
    "hangs up": b"",
    "an empty answer": ok(b"", b"connection: close"),
    "a page": ok(b"<html>", b"content-type: text/html", b"connection: close"),
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/x\r\ncontent-length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    "ten megabytes": ok(b" " * 10_000_000, b"content-type: application/json", b"connection: close"),
}


@pytest.mark.parametrize("fault", KEY_FAULTS)
async def test_while_keys_cannot_be_fetched_the_last_good_ones_serve(world: World, fault: str) -> None:
    async with under_load(world) as (sidecar, steady):
        world.broken_keys = KEY_FAULTS[fault]
        await until(lambda: sidecar.server.parts.snapshots.setup.keys.last_errors() != {ISSUER: None})
        assert set(await steady.hold()) == {"served"}
        await unlawful_is_refused(world, sidecar)
        world.broken_keys = None
        assert set(await steady.hold()) == {"served"}


async def test_a_removed_key_stops_within_the_refresh_and_serves_again_when_it_is_back(world: World) -> None:
    async with under_load(world) as (sidecar, steady):
        keys, world.keys = world.keys, {"keys": []}
        await until(lambda: steady.told.keys() - {"served"} != set())
        assert "served" not in await steady.hold()
        await unlawful_is_refused(world, sidecar)
        world.keys = keys
        served = steady.told["served"]
        await until(lambda: steady.told["served"] > served)
        assert set(await steady.hold()) == {"served"}


async def test_a_lost_workload_api_takes_nothing_away(world: World) -> None:
    async with under_load(world) as (sidecar, steady):
        await sidecar.api.stop()
        assert set(await steady.hold()) == {"served"}
        await unlawful_is_refused(world, sidecar)
        await sidecar.api.start()
        assert set(await steady.hold()) == {"served"}


async def test_a_withdrawn_identity_stops_everything_until_it_is_granted_again(world: World) -> None:
    async with under_load(world) as (sidecar, steady):
        entries = sidecar.api.registry.entries
        sidecar.api.registry.replace_entries(())
        await until(lambda: sidecar.server.parts.source.current is None)
        await steady.hold()  # requests in flight
        assert "served" not in await steady.hold()
        await unlawful_is_refused(world, sidecar)
        sidecar.api.registry.replace_entries(entries)
        served = steady.told["served"]
        await until(lambda: steady.told["served"] > served)
        await steady.hold()
        assert set(await steady.hold()) == {"served"}


async def test_renewed_svids_cost_no_request(world: World) -> None:
    async with under_load(world) as (sidecar, steady):
        (entry,) = sidecar.api.registry.entries
        sidecar.api.registry.replace_entries([replace(entry, ttl_s=6)])  # renewed every three seconds
        generations = set[int]()
        while len(generations) < 3:
            assert set(await steady.hold()) == {"served"}
            identity = sidecar.server.parts.source.current
            assert identity is not None
            generations.add(identity.number)


def trusted(sidecar: Sidecar) -> Collection[TrustDomain]:
    identity = sidecar.server.parts.source.current
    return () if identity is None else identity.bundles


async def test_a_federated_domain_comes_and_goes_without_the_own_one_noticing(world: World) -> None:
    async with under_load(world) as (sidecar, steady):
        (entry,) = sidecar.api.registry.entries
        sidecar.api.registry.replace_entries([replace(entry, federates_with=frozenset())])
        await until(lambda: PARTNER not in trusted(sidecar))
        assert set(await steady.hold()) == {"served"}
        sidecar.api.registry.replace_entries([entry])
        await until(lambda: PARTNER in trusted(sidecar))
        assert set(await steady.hold()) == {"served"}


async def test_a_process_that_was_stopped_for_half_a_second_goes_on(world: World) -> None:
    path, _, ports, records = await world.written(WRITER, world.settings(), {})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.cli", "run", "--config", str(path)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: records.exists() and '"event":"started"' in records.read_text(), START_S)
        planner = calling(await world.source(PLANNER), WRITER)
        process.send_signal(signal.SIGSTOP)
        asked = asyncio.ensure_future(world.call(ports["in"], planner, headers=bearer(mint())))
        await asyncio.wait([asked], timeout=0.5)
        assert not asked.done()
        process.send_signal(signal.SIGCONT)
        assert (await asked).status == 200
        told = [json.loads(line)["reason"] for line in whole_lines(records) if '"request"' in line]
        assert told in ([], ["ok"])
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_S)
