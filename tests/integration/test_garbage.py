"""Finished requests are freed at once: they leave no reference cycles, which would live until a full collection.

A cycle that holds a TLS connection holds its buffers, and full collections are rare: a stream of callers would grow
memory by hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.integration.hops import Hops
from tests.integration.world import bearer, mint, ok

pytestmark = pytest.mark.integration


@contextmanager
def no_circles() -> Iterator[None]:
    """Check that nothing of ours becomes garbage that only the collector finds."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = sorted({type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("sidecar.")})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


async def served(hops: Hops) -> None:
    hops.agent.script = None
    answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint()), body=b"hello")
    assert answer.status == 200


async def refused(hops: Hops) -> None:
    answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint({"act": None})))
    assert answer.reason == "act_missing"


async def unreadable(hops: Hops) -> None:
    assert (await hops.world.exchange(hops.writer.inbound, hops.planner, b"GET /\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def cut_by_the_agent(hops: Hops) -> None:
    hops.agent.say_and_hang_up(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint()))


async def left_by_the_peer(hops: Hops) -> None:
    never = hops.agent.never()
    hops.agent.script = lambda _head, _body: never
    _, writer = await _ask(hops)
    await hops.agent.arrived.wait()
    writer.transport.abort()
    await hops.writer.wait_for_records(1)
    never.set_result(ok(b"too late"))


async def never_read_by_the_peer(hops: Hops) -> None:
    hops.agent.script = lambda _head, _body: ok(b"x" * 20_000_000)
    reader, writer = await _ask(hops)
    await reader.readexactly(100_000)
    writer.transport.abort()


async def called_out(hops: Hops) -> None:
    async with hops.serving() as held:
        assert (await hops.call(held.shown)).status == 200


async def refused_a_call(hops: Hops) -> None:
    assert (await hops.call([])).reason == "no_request_context"


async def _ask(hops: Hops) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", hops.writer.inbound, ssl=hops.planner, server_hostname="sidecar"
    )
    writer.write(f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {mint()}\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize(
    "request_of_a_kind",
    [
        served,
        refused,
        unreadable,
        cut_by_the_agent,
        left_by_the_peer,
        never_read_by_the_peer,
        called_out,
        refused_a_call,
    ],
)
async def test_a_request_that_is_over_leaves_no_circle(
    hops: Hops, request_of_a_kind: Callable[[Hops], Awaitable[None]]
) -> None:
    await hops.start()
    with no_circles():
        await request_of_a_kind(hops)
        await hops.writer.wait_for_records(1)
        async with asyncio.timeout(5):
            await hops.writer.server.parts.listeners[0].connections.wait_for_empty()
