"""The image in a cgroup with a limit, and a flood that costs memory: it sheds load, is not killed, and recovers.

The container shares the network and a folder with the test; everything but its memory is as in ``tests/integration``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.crowd import Kind, crowd_at, written
from tests.integration.test_descriptors import call
from tests.integration.world import (
    PLANNER,
    START_S,
    WRITER,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
    whole_lines,
)
from tests.interop.engine import IMAGE, docker, missing, require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

LIMIT: Final = "128m"
UNSEEN_MIB: Final = 65536  # a limit of the sidecar's own, far above its cgroup's, and the only one it reads
MUCH: Final = ok(b"x" * 8_000_000)
FLOODED_S: Final = 60.0


@asynccontextmanager
async def container(world: World, settings: Mapping[str, Any]) -> AsyncIterator[tuple[str, Mapping[str, int], Path]]:
    """Run the image with this little memory; yield its name, ports and records, ready when the block begins."""
    path, _, ports, records = await world.written(WRITER, settings, {})
    folder = world.folder
    options = ["--network=host", f"--memory={LIMIT}", f"--memory-swap={LIMIT}", "--read-only", "--cap-drop=ALL"]
    options += ["--user=0:0", f"--volume={folder}:{folder}"]  # the Workload API here knows only this process's user
    name = docker("run", "--detach", *options, IMAGE, "run", "--config", str(path)).strip()
    try:
        await until(lambda: records.exists() and '"event":"started"' in records.read_text(), START_S)
        yield name, ports, records
    finally:
        docker("rm", "--force", name)


async def state_of(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(await asyncio.to_thread(docker, "inspect", name))[0]["State"]
    return found


async def is_short(world: World, port: int) -> bool:
    """Return the probe listener's metric of memory pressure."""
    return b"\nsidecar_memory_short 1.0\n" in (await world.call(port, None, "/metrics", method="GET")).body


def flood() -> list[Kind]:
    """Flood it with unread answers, heads that do not end, bodies that stop."""
    head = f"/draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\n"
    return [
        Kind(count=150, first=f"GET {head}x-much: yes\r\n\r\n", reads=False),
        Kind(count=150, first=f"GET {head}x-large: {'x' * 25_000}\r\n", drip="x: y\r\n"),
        Kind(count=50, first=f"POST {head}content-length: 90000000\r\n\r\n{'x' * 300_000}", drip="x"),
    ]


@pytest.mark.parametrize("looks", [True, False], ids=["as it is", "looking elsewhere"])
async def test_it_sheds_before_the_kernel_ends_it_and_recovers(world: World, looks: bool) -> None:
    """The second run proves the first: without reading its cgroup the same flood kills it."""
    require(missing())
    world.agent.script = lambda head, _: MUCH if b"x-much: yes" in head else ok(b"done")
    source = await world.source(PLANNER)
    planner = calling(source, WRITER)
    assert source.current is not None
    pem = written(source.current, world.folder / "crowd.pem")
    settings = world.settings(**({} if looks else {"max_memory_mib": UNSEEN_MIB}))
    async with container(world, settings) as (name, ports, records):
        port = ports["in"]
        assert (await world.call(port, planner, headers=bearer(mint()))).status == 200
        assert not await is_short(world, ports["probe"])
        async with crowd_at(port, pem, flood()):
            async with asyncio.timeout(FLOODED_S):
                if not looks:
                    while (state := await state_of(name))["Running"]:  # noqa: ASYNC110 - there is no event
                        await asyncio.sleep(0.2)
                    assert state["ExitCode"] == 137
                    return
                while not any('"memory is short"' in line for line in whole_lines(records)):
                    assert (await state_of(name))["Running"]
                    await asyncio.sleep(0.1)
            for _ in range(20):
                answer = await call(world, port, planner)
                assert answer is None or answer.status == 200 or answer.reason == "overloaded"
        # A connection that began while the queue was full is tried again by the kernel after 1, 3, 7 and 15 s.
        async with asyncio.timeout(FLOODED_S):
            while (answer := await call(world, port, planner)) is None or answer.status != 200:
                assert answer is None or answer.reason == "overloaded"
            while await is_short(world, ports["probe"]):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
        state = await state_of(name)
        assert (state["Running"], state["OOMKilled"]) == (True, False)
        await asyncio.to_thread(docker, "stop", name)
        assert (await state_of(name))["ExitCode"] == 0
