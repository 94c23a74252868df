"""The real command with 64 descriptors against a hostile flood: lawful calls are unaffected, and nothing remains.

New connections wait behind the flood in the kernel's accept queue; an accepted one is served at the first try.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

import pytest

from delegation_core.spiffe_id import SpiffeId
from tests.integration.crowd import Kind, crowd_at, written
from tests.integration.test_descriptors import call, command
from tests.integration.world import (
    FRONT,
    PATIENCE_S,
    PLANNER,
    WRITER,
    Kept,
    World,
    bearer,
    calling,
    mint,
    ok,
    until,
    whole_lines,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CALLERS: Final = 4
CALLS_OF_EACH: Final = 2
QUEUE_S: Final = 40.0
STUCK_S: Final = 20.0  # a peer may read nothing for 30 s while its place is not needed
BASELINE_WITHIN_S: Final = 5.0
AGENTS_CONNECTIONS: Final = 4  # kept for the next calls, and closed when idle


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counting


async def connect(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="sidecar")


def answer(head: bytes, _body: bytes) -> bytes:
    return ok(b"x" * 20_000_000) if b"x-much: yes" in head else ok(b"done")


def head_of(actor: SpiffeId) -> str:
    """A request without its last line, from an actor who may call."""
    token = mint({"act": {"sub": actor}, "client_id": actor})
    return f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n"


def settings_of(world: World) -> dict[str, Any]:
    """Settings: planner and front may call."""
    settings = world.settings()
    settings["inbound"]["routes"][0]["peers"] = [str(PLANNER), str(FRONT)]
    return settings


def never_reads(actor: SpiffeId, count: int) -> Kind:
    return Kind(count=count, first=head_of(actor) + "x-much: yes\r\n\r\n", reads=False)


async def lawful(port: int, context: ssl.SSLContext) -> int:
    """Make one call of the planner, on its own connection."""
    async with asyncio.timeout(QUEUE_S):
        reader, writer = await connect(port, context)
        try:
            writer.write(head_of(PLANNER).encode() + b"\r\n")
            return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        finally:
            writer.close()


async def several(port: int, context: ssl.SSLContext) -> Sequence[int]:
    async def caller() -> list[int]:
        return [await lawful(port, context) for _ in range(CALLS_OF_EACH)]

    return [status for one in await asyncio.gather(*(caller() for _ in range(CALLERS))) for status in one]


async def keep_calling(kept: Kept, statuses: list[int]) -> None:
    """Make one call after another on one connection, until cancelled."""
    while True:
        statuses.append((await kept.ask(headers=bearer(mint()))).status)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("whose", "host"),
    [(PLANNER, "127.0.0.1"), (FRONT, "127.0.0.1"), (FRONT, "127.0.0.2")],
    ids=["the caller's own workload", "another workload", "another workload at another address"],
)
async def test_lawful_calls_do_not_notice_a_crowd_and_nothing_of_it_stays(
    world: World, whose: SpiffeId, host: str
) -> None:
    world.agent.script = answer
    planner = calling(await world.source(PLANNER), WRITER)
    identity = (await world.source(whose)).current
    assert identity is not None
    kinds = [
        never_reads(whose, 4),
        Kind(count=100),
        Kind(count=200, first=head_of(whose), drip="x: y\r\n"),
        Kind(count=40, tls=False),
    ]
    async with command(world, settings_of(world)) as (process, ports, records):
        port = ports["in"]
        assert set(await several(port, planner)) == {200}
        before = descriptors(process.pid)
        kept_statuses: list[int] = []
        async with world.kept(port, planner) as kept:
            keeping = asyncio.ensure_future(keep_calling(kept, kept_statuses))
            async with crowd_at(port, written(identity, world.folder / "crowd.pem"), kinds, host=host):
                assert await several(port, planner) == [200] * CALLERS * CALLS_OF_EACH
                assert descriptors(process.pid) <= 64
            assert not keeping.done()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        assert sum('"overloaded"' in line for line in whole_lines(records)) > 20  # it was a flood
        assert len(kept_statuses) > 5
        assert set(kept_statuses) == {200}
        await until(lambda: descriptors(process.pid) <= before + AGENTS_CONNECTIONS, BASELINE_WITHIN_S)
        async with asyncio.timeout(PATIENCE_S):
            assert await lawful(port, planner) == 200
        assert process.returncode is None


async def test_readers_that_never_read_hold_no_place_that_others_need(world: World) -> None:
    """There are more than fit: while they may still be merely slow, new callers are refused."""
    world.agent.script = answer
    source = await world.source(PLANNER)
    planner = calling(source, WRITER)
    assert source.current is not None
    pem = written(source.current, world.folder / "crowd.pem")
    async with command(world, settings_of(world)) as (process, ports, _):
        async with crowd_at(ports["in"], pem, [never_reads(PLANNER, 20)]):
            began_at = time.monotonic()
            for _ in range(3):
                async with asyncio.timeout(STUCK_S):
                    while (told := await call(world, ports["in"], planner)) is None or told.status != 200:
                        assert told is None or told.reason == "overloaded"
            assert time.monotonic() - began_at < STUCK_S
        assert process.returncode is None
