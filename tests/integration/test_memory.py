"""The real command, with hardly any memory: it sheds what it cannot take, stays below its limit, and recovers."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Final

import pytest

from sidecar.proxy.memory_use import own_bytes
from tests.integration.crowd import Kind, crowd_at, written
from tests.integration.test_descriptors import call, command
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, World, bearer, calling, mint, ok, until, whole_lines

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

LIMIT_MIB: Final = 120  # three times what it takes by itself
MOST_MIB: Final = 138  # what comes within one look may go beyond it; without a limit it is more
CROWD: Final = 400  # of which each takes a third of a MiB, given the time
MUCH: Final = ok(b"x" * 20_000_000)
FILLED_S: Final = 60.0  # all of the crowd shares the agent's event loop


def crowd() -> Kind:
    """Callers who ask for much and take nothing of it; each comes again, whether it was cut or not."""
    head = f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\nx-much: yes\r\n\r\n"
    return Kind(count=CROWD, first=head, reads=False)


def ended_for_memory(records: Path) -> int:
    """Requests that were; a handshake that made room for another on a busy machine is overloaded as well."""
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
