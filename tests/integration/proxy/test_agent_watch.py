from __future__ import annotations

import asyncio

import pytest

from sidecar.proxy.listening.agent_watch import AgentWatch
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import UpstreamPool
from tests.fakes.conversations import listening
from tests.integration.world import free_port

pytestmark = pytest.mark.integration


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def origin(port: int) -> Origin:
    return Origin("127.0.0.1", port, key=port)


async def test_an_agent_that_goes_is_told_and_one_that_comes_back_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    at = [origin(free_port())]
    watch = AgentWatch(UpstreamPool(ClientLimits()), lambda: at[0])

    async def look() -> bool | None:
        await watch.look()
        return watch.up

    assert await look() is None  # it is starting
    for _ in range(2):
        async with listening(hang_up) as port:
            at[0] = origin(port)
            assert await look() is True
        assert await look() is False
    said = [record.message for record in caplog.records if "agent" in record.message]
    assert said == ["the agent no longer listens", "the agent listens again", "the agent no longer listens"]


async def test_a_connection_that_is_open_is_proof_enough() -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def keep(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with listening(keep) as port:
        pool, there = UpstreamPool(ClientLimits()), asyncio.Event()
        pool.connect(origin(port), lambda _connection: there.set(), lambda _error: None)
        await asyncio.wait_for(there.wait(), 10)
        watch = AgentWatch(pool, lambda: origin(port))
        await watch.look()
        assert (watch.up, len(accepted)) == (True, 1)
        await pool.close()


async def test_a_connection_to_another_port_of_the_agent_proves_nothing() -> None:
    async def keep(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with listening(keep) as grpc_port:
        pool, there = UpstreamPool(ClientLimits()), asyncio.Event()
        pool.connect(origin(grpc_port), lambda _connection: there.set(), lambda _error: None)
        await asyncio.wait_for(there.wait(), 10)
        at = [origin(grpc_port)]
        watch = AgentWatch(pool, lambda: at[0])
        await watch.look()
        at[0] = origin(free_port())
        await watch.look()
        assert watch.up is False
        await pool.close()


async def test_where_nobody_is_served_nothing_is_told() -> None:
    watch = AgentWatch(UpstreamPool(ClientLimits()), lambda: None)
    await watch.look()
    assert watch.up is None
