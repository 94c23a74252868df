"""The real command with few file descriptors: it sheds load, and recovers by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.world import PATIENCE_S, PLANNER, START_S, WRITER, Answer, World, bearer, calling, mint, until

pytestmark = pytest.mark.integration

DESCRIPTORS: Final = 64
CROWD: Final = 150


@asynccontextmanager
async def command(
    world: World, settings: Mapping[str, Any], *, descriptors: int = DESCRIPTORS
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mapping[str, int], Path]]:
    """Run ``sidecar run`` as a separate process; ready when the block begins."""
    path, _, ports, records = await world.written(WRITER, settings, {})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sidecar.cli", "run", "--config", str(path)),
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    try:
        await until(lambda: records.exists() and '"event":"started"' in records.read_text(), START_S)
        yield process, ports, records
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def call(world: World, port: int, context: ssl.SSLContext) -> Answer | None:
    """Make one lawful request; None if the connection is refused or cut."""
    try:
        answer = await world.call(port, context, headers=bearer(mint()))
    except (OSError, asyncio.IncompleteReadError):
        return None
    return answer if answer.status else None


@pytest.mark.parametrize("shakes_hands", [False, True], ids=["silent", "idle"])
async def test_a_crowd_is_told_so_and_when_it_leaves_the_next_caller_is_served(
    world: World, shakes_hands: bool
) -> None:
    planner = calling(await world.source(PLANNER), WRITER)
    async with command(world, world.settings()) as (process, ports, records):
        port = ports["in"]
        assert (await world.call(port, planner, headers=bearer(mint()))).status == 200
        async with contextlib.AsyncExitStack() as crowd:
            for _ in range(CROWD):
                with contextlib.suppress(OSError):
                    await crowd.enter_async_context(world.kept(port, planner if shakes_hands else None))
            answers = [await call(world, port, planner) for _ in range(5)]
            assert all(answer is None or answer.status in {200, 503} for answer in answers)
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await call(world, port, planner)) is None or answer.status != 200:
                assert answer is None or answer.reason == "overloaded"
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        told = Counter(record["event"] for record in map(json.loads, records.read_text().splitlines()))
        assert told["stopped"] == 1
        assert told["request"] >= 2
