"""Memory of connections that have ended is free again: counted in objects, and in bytes of the C library."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import pytest

from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.libc_memory import allocated_bytes, give_back
from sidecar.wire.connections import SWEPT_AT_ONCE
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_reader import RequestReader
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.h1_stream import H1Stream
from tests.integration.world import PLANNER, WRITER, World, bearer, calling, mint, until

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

HELD: Final = 3 * SWEPT_AT_ONCE  # more than one step of a sweep
MOST_LEFT: Final = 4000  # bytes for each: two copies of its record, which these tests keep
OURS: Final = (ServerConnection, H1Stream, RequestReader)


def alive() -> Counter[str]:
    """Count the objects of callers' connections, without those of connections to the agent."""
    objects = gc.get_objects()
    counted = Counter(type(one).__name__ for one in objects if isinstance(one, OURS))
    counted["tls"] = sum(isinstance(one, VerifyingSSLObject) and one.server_side for one in objects)
    return counted


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector: what it would find late is a leak until then."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_when_callers_leave_nothing_of_their_connections_is_left(world: World) -> None:
    sidecar = await world.sidecar(WRITER, world.settings())
    planner = calling(await world.source(PLANNER), WRITER)
    token = bearer(mint())
    assert (await world.call(sidecar.inbound, planner, headers=token)).status == 200
    await until(lambda: not alive()["ServerConnection"])
    before = alive()

    async def hold() -> tuple[int, int]:
        """Hold connections that have each made a request, and end them. Return the bytes then, and afterwards."""
        async with AsyncExitStack() as stack:
            for _ in range(HELD):
                kept = await stack.enter_async_context(world.kept(sidecar.inbound, planner))
                assert (await kept.ask(headers=token)).status == 200
            held, bytes_held = alive(), _allocated()
            assert (held["ServerConnection"], held["tls"]) == (HELD, HELD)
        await until(lambda: alive() == before)
        world.agent.requests.clear()
        gc.collect()  # the test's own ends are asyncio's, which has cycles
        return bytes_held, _allocated()

    _, first = await hold()  # allocators and tables keep what the most at once took
    held, second = await hold()
    assert held - first > HELD * 20_000
    assert second - first < HELD * MOST_LEFT


async def test_an_idle_connection_to_the_agent_ends_and_leaves_nothing(world: World) -> None:
    settings = world.settings()
    settings["inbound"]["upstream_limits"] = {"idle_keep_s": 0.2}
    sidecar = await world.sidecar(WRITER, settings)
    planner = calling(await world.source(PLANNER), WRITER)
    answers = await asyncio.gather(*(world.call(sidecar.inbound, planner, headers=bearer(mint())) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    await until(lambda: not any(isinstance(one, ClientConnection) for one in gc.get_objects()))


def _allocated() -> int:
    give_back()
    size = allocated_bytes()
    if size is None:
        pytest.skip("not glibc")
    return size
