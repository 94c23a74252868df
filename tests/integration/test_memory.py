"""The real command, with little memory: it sheds load, stays below its limit, and recovers."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from sidecar.proxy.listening.system_memory import own_bytes
from tests.integration.crowd import Kind, crowd_at, written
from tests.integration.test_descriptors import call, command
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, World, bearer, calling, mint, ok, until, whole_lines

pytestmark = [pytest.mark.integration, pytest.mark.budget, pytest.mark.timeout(180)]

LIMIT_MIB: Final = 120  # three times its own need
MOST_MIB: Final = 138  # bytes within one measurement may exceed the limit; without a limit it is more
CROWD: Final = 400  # each takes a third of a MiB, given the time
MUCH: Final = ok(b"x" * 20_000_000)
FILLED_S: Final = 60.0  # they all share the agent's event loop


def crowd() -> Kind:
    """Callers that request large answers and read nothing; each reconnects, cut or not."""
    head = f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\nx-much: yes\r\n\r\n"
    return Kind(count=CROWD, first=head, reads=False)


def ended_for_memory(records: Path) -> int:
    """Return requests ended for memory; a handshake evicted on a busy machine is overloaded as well."""
    return sum(
        (record["event"], record["reason"], record["detail"]) == ("request", "overloaded", "memory is short")
        for record in map(json.loads, whole_lines(records))
    )


@pytest.mark.parametrize("limited", [True, False])
async def test_memory_is_shed_before_it_is_out_and_when_the_crowd_leaves_the_next_caller_is_served(
    world: World, limited: bool
) -> None:
    world.agent.script = lambda head, _: MUCH if b"x-much: yes" in head else ok(b"done")
    source = await world.source(PLANNER)
    planner = calling(source, WRITER)
    assert source.current is not None
    pem = written(source.current, world.folder / "crowd.pem")
    settings = world.settings(**({"max_memory_mib": LIMIT_MIB} if limited else {}))
    settings["inbound"]["connections"] = {"max_waiting_per_peer": 2 * CROWD}  # memory alone is to end their answers
    async with command(world, settings, descriptors=4096) as (process, ports, records):
        port, most_mib = ports["in"], 0.0

        def used_mib() -> float:
            nonlocal most_mib
            now_mib = (own_bytes(Path(f"/proc/{process.pid}/statm")) or 0) / 1024 / 1024
            most_mib = max(most_mib, now_mib)
            return now_mib

        assert (await world.call(port, planner, headers=bearer(mint()))).status == 200
        assert used_mib() < LIMIT_MIB * 0.7
        async with crowd_at(port, pem, [crowd()]):
            if limited:
                await until(lambda: used_mib() > 0 and ended_for_memory(records) > 0, FILLED_S)
            else:
                await until(lambda: used_mib() > MOST_MIB, FILLED_S)
            for _ in range(10):
                answer = await call(world, port, planner)
                used_mib()
                assert answer is None or answer.status == 200 or (limited and answer.reason == "overloaded")
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await call(world, port, planner)) is None or answer.status != 200:
                assert answer is None or answer.reason == "overloaded"
        assert process.returncode is None
        assert (most_mib < MOST_MIB) == limited
        assert (ended_for_memory(records) > 0) == limited
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


# --- large tokens

TOKENS: Final = 1_200  # distinct ones, of 12.5 KB: without a bound verdicts, permits and handles take 90 MiB
LIVES_S: Final = 15
LITTLE: Final = {"max_handles_mib": 8, "max_verdicts_mib": 4, "max_permits_mib": 4}
MARGIN_MIB: Final = 14  # cached heads, and the heap's own


async def held_bytes(world: World, probe: int) -> float:
    """Return the size of all caches, by the sidecar's own account."""
    metrics = (await world.call(probe, None, "/metrics", method="GET")).body.decode()
    rows = [line for line in metrics.splitlines() if line.startswith("sidecar_cache_bytes{")]
    assert rows
    return sum(float(row.rpartition(" ")[2]) for row in rows)


@pytest.mark.parametrize("memory", [LITTLE, {}], ids=["little", "by default"])
async def test_large_tokens_take_what_they_may_and_give_it_back_when_they_expire(
    world: World, memory: dict[str, int]
) -> None:
    """The second run proves the first: it takes more than that may."""
    planner = calling(await world.source(PLANNER), WRITER)
    settings = world.settings(memory=memory)
    settings["issuers"][0]["profile"] = {"preset": "sts", "leeway_s": 0}
    settings["inbound"]["routes"][0]["linger_s"] = 600
    async with command(world, settings, descriptors=4096) as (process, ports, _):

        def used_mib() -> float:
            return (own_bytes(Path(f"/proc/{process.pid}/statm")) or 0) / 1024 / 1024

        assert (await world.call(ports["in"], planner, headers=bearer(mint()))).status == 200
        before = used_mib()
        async with world.kept(ports["in"], planner) as kept:
            for _ in range(TOKENS):
                large = mint({"exp": int(time.time()) + LIVES_S, "groups": "x" * 9_000})
                assert (await kept.ask(headers=bearer(large))).status == 200
            most = used_mib() - before
            assert (most < sum(LITTLE.values()) + MARGIN_MIB) == (memory == LITTLE)
            async with asyncio.timeout(LIVES_S + PATIENCE_S):
                while await held_bytes(world, ports["probe"]) > 64 * 1024:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.2)
                while used_mib() - before > MARGIN_MIB:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.2)
            assert (await kept.ask(headers=bearer(mint()))).status == 200


async def test_connections_give_their_memory_back_when_they_leave(world: World) -> None:
    source = await world.source(PLANNER)
    assert source.current is not None
    pem = written(source.current, world.folder / "crowd.pem")
    head = f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\n\r\n"
    async with command(world, world.settings(), descriptors=4096) as (process, ports, _):

        def used_mib() -> float:
            return (own_bytes(Path(f"/proc/{process.pid}/statm")) or 0) / 1024 / 1024

        before = used_mib()
        async with crowd_at(ports["in"], pem, [Kind(count=500, first=head)]):
            await until(lambda: used_mib() - before > 18, FILLED_S)  # 22 when all are there; small parts stay
        # What warms up stays (5 MiB), and what lies between small parts.
        await until(lambda: used_mib() - before < 15, 3 * PATIENCE_S)
