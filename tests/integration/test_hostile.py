"""The real command with 64 descriptors against a hostile crowd: lawful calls do not notice, and nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.integration.test_descriptors import command
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, World, calling, mint, ok

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HELD: Final = 100
SLOW_HEADS: Final = 200
SILENT: Final = 40
LAWFUL: Final = 20
QUEUE_S: Final = 40.0
BASELINE_WITHIN_S: Final = 5.0
AGENTS_CONNECTIONS: Final = 4  # kept for the next calls, and closed when they are not used


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counting


class Crowd:
    """Connections that want nothing but room, and stay as long as they are let."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    def send(self, count: int, *, context: ssl.SSLContext | None, first: bytes = b"", drip: bytes = b"") -> None:
        for _ in range(count):
            self._tasks.append(asyncio.ensure_future(self._member(context, first, drip)))

    async def _member(self, context: ssl.SSLContext | None, first: bytes, drip: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            reader, writer = await connect(self._port, context)
            try:
                await self._stay(reader, writer, first, drip)
            finally:
                writer.transport.abort()

    async def _stay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, drip: bytes
    ) -> None:
        writer.write(first)
        while not (self._over or reader.at_eof() or writer.is_closing()):
            writer.write(drip)
            await asyncio.sleep(0.2)

    async def leave(self) -> None:
        """Each by itself, as it would: a connection that is cut while it is made is never closed by its loop."""
        self._over = True
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def crowd_at(port: int, context: ssl.SSLContext) -> AsyncIterator[Crowd]:
    crowd = Crowd(port, context)
    try:
        yield crowd
    finally:
        await crowd.leave()


async def connect(port: int, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = "sidecar" if context is not None else None
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


def answer(head: bytes, _body: bytes) -> bytes:
    return ok(b"x" * 20_000_000) if b"x-much: yes" in head else ok(b"done")


async def test_lawful_calls_do_not_notice_a_crowd_and_nothing_of_it_stays(world: World) -> None:
    world.agent.script = answer
    planner = calling(await world.source(PLANNER), WRITER)
    token = mint()
    async with command(world, world.settings()) as (process, ports, _):
        port = ports["in"]

        async def lawful() -> int:
            """One call. It waits its turn; a connection that made room before its head was there is made again.

            On a busy machine that happens: all of the crowd shares the caller's event loop.
            """
            async with asyncio.timeout(QUEUE_S):
                while True:
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                        reader, writer = await connect(port, planner)
                        try:
                            writer.write(head + b"\r\n")
                            return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
                        finally:
                            writer.close()

        head = f"GET /draft HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n".encode()
        assert [await lawful() for _ in range(3)] == [200] * 3
        before = descriptors(process.pid)
        _, never_reads = await connect(port, planner)
        never_reads.transport.pause_reading()  # type: ignore[attr-defined]
        never_reads.write(head + b"x-much: yes\r\n\r\n")
        try:
            async with crowd_at(port, planner) as crowd:
                crowd.send(HELD, context=planner)
                crowd.send(SLOW_HEADS, context=planner, first=head, drip=b"x: y\r\n")
                crowd.send(SILENT, context=None)
                assert [await lawful() for _ in range(LAWFUL)] == [200] * LAWFUL
                assert descriptors(process.pid) <= 64
        finally:
            never_reads.transport.abort()
        async with asyncio.timeout(BASELINE_WITHIN_S):
            while descriptors(process.pid) > before + AGENTS_CONNECTIONS:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE_S):
            assert await lawful() == 200
        assert process.returncode is None
