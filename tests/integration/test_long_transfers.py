"""Long transfers through a sidecar in a separate process: its end while they run, and its memory."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sidecar.wire.kernel import receive_buffer
from sidecar.wire.websocket import Handshake
from tests.integration.process import Running, process
from tests.integration.world import PATIENCE_S, PLANNER, WRITER, Kept, World, calling, mint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PIECE = bytes(range(256)) * 256
PIECES = 128  # 8 MiB
SIZE = len(PIECE) * PIECES
HASH = hashlib.sha256(PIECE * PIECES).hexdigest()
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ENOUGH = 64 * 1024 * 1024


class Agent:
    """Answers a POST with the hash of its body; sends 8 MiB on GET, the second half when ``go`` is set.

    Below ``/flood`` it sends without end, or reads nothing; with an Upgrade it switches first.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.halfway = asyncio.Semaphore(0)
        self.flooded = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            while b"x-flood" not in head and b"x-events" not in head and b"upgrade" not in head:
                await (self._give(writer) if head.startswith(b"GET") else self._take(reader, writer))
                head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head:
                accept = Handshake(KEY, frozenset()).accept
                writer.write(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
                writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            if b"x-flood: answer" in head:
                await self._flood(writer, head)
            elif b"x-flood: request" in head:
                await asyncio.Event().wait()
            else:
                if b"x-events" in head:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for number in range(PIECES):
            if number == PIECES // 2:
                self.halfway.release()
                await self.go.wait()
            writer.write(PIECE)
            await writer.drain()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest, heard = hashlib.sha256(), 0
        while heard < SIZE:
            data = await reader.read(65536)
            if not data:
                return
            if heard < SIZE // 2 <= heard + len(data):
                self.halfway.release()
            heard += len(data)
            digest.update(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())
        await writer.drain()

    async def _flood(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        if b"upgrade: websocket" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            writer.write(PIECE)
            self.flooded += len(PIECE)
            await writer.drain()


@pytest.fixture
async def agent(world: World) -> AsyncIterator[Agent]:
    made = Agent()
    world.agent.port = await world.listen(made.serve)
    yield made
    made.go.set()


def ask(kept: Kept, method: str, *fields: bytes) -> None:
    head = [f"{method} /draft HTTP/1.1".encode(), b"Host: a", f"Authorization: Bearer {mint()}".encode(), *fields]
    kept.writer.write(b"\r\n".join([*head, b"", b""]))


def ask_to_switch(kept: Kept, *fields: bytes) -> None:
    ask(
        kept, "GET", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + KEY, *fields,
    )  # fmt: skip


async def connected(world: World, stack: AsyncExitStack, sidecar: Running) -> Kept:
    planner = calling(await world.source(PLANNER), WRITER)
    return await stack.enter_async_context(world.kept(sidecar.port, planner))


async def head_of(kept: Kept) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await kept.reader.readuntil(b"\r\n\r\n")


# --- the end


async def download(kept: Kept) -> str:
    await head_of(kept)
    digest = hashlib.sha256()
    left = SIZE
    async with asyncio.timeout(3 * PATIENCE_S):
        while left:
            data = await kept.reader.read(min(left, 65536))
            assert data, "the answer is truncated"
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


async def upload(kept: Kept, go: asyncio.Event) -> str:
    for number in range(PIECES):
        if number == PIECES // 2 + 2:
            await go.wait()
        kept.writer.write(PIECE)
        await kept.writer.drain()
    await head_of(kept)
    return (await kept.reader.readexactly(64)).decode()


async def test_a_drain_with_five_transfers_in_flight_finishes_each_and_tells_the_streams(
    world: World, agent: Agent
) -> None:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world, drain_s=30.0))
        callers = [await connected(world, stack, sidecar) for _ in range(7)]
        for down in callers[:3]:
            ask(down, "GET")
        for up in callers[3:5]:
            ask(up, "POST", b"Content-Length: %d" % SIZE)
        transfers = [
            *(asyncio.ensure_future(download(down)) for down in callers[:3]),
            *(asyncio.ensure_future(upload(up, agent.go)) for up in callers[3:5]),
        ]
        tunnel, events = callers[5:]
        ask_to_switch(tunnel)
        assert b" 101 " in await head_of(tunnel)
        ask(events, "GET", b"X-Events: 1")
        assert b" 200 " in await head_of(events)
        for _ in transfers:
            async with asyncio.timeout(PATIENCE_S):
                await agent.halfway.acquire()
        sidecar.process.send_signal(signal.SIGTERM)
        await sidecar.wait_for_refusal()
        agent.go.set()
        assert await asyncio.gather(*transfers) == [HASH] * 5
        assert (await tunnel.wait_for_end()) == b"\x88\x0a\x03\xe9draining"
        assert (await events.wait_for_end()) == b"0\r\n\r\n"
        assert await asyncio.wait_for(sidecar.process.wait(), PATIENCE_S) == 0
    reasons = sorted(record["reason"] for record in sidecar.records() if record["event"] == "request")
    assert reasons == ["draining"] * 2 + ["ok"] * 5


async def test_streams_alone_do_not_keep_it_and_it_ends_well(world: World, agent: Agent) -> None:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world, drain_s=60.0))
        tunnel, events = [await connected(world, stack, sidecar) for _ in range(2)]
        ask_to_switch(tunnel)
        await head_of(tunnel)
        ask(events, "GET", b"X-Events: 1")
        await head_of(events)
        assert await sidecar.end(signal.SIGTERM) == 0
        assert (await tunnel.wait_for_end()).startswith(b"\x88")
        assert (await events.wait_for_end()) == b"0\r\n\r\n"


async def test_a_stream_whose_caller_is_frozen_does_not_keep_it_either(world: World, agent: Agent) -> None:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world, drain_s=4.0))
        tunnel = await connected(world, stack, sidecar)
        ask_to_switch(tunnel)
        await head_of(tunnel)
        tunnel.writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert await sidecar.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("fields", [[b"X-Flood: answer"], []], ids=["an event stream", "an answer"])
async def test_a_caller_who_takes_nothing_fails_the_drain_only_if_there_is_more_to_give(
    world: World, agent: Agent, fields: list[bytes]
) -> None:
    """The stream was ended in time, and its record is written; part of the answer is still to be sent."""
    agent.go.set()
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world, drain_s=4.0))
        caller = await connected(world, stack, sidecar)
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # else the kernel may grow the buffer until the whole answer fits
        caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        ask(caller, "GET", *fields)
        await asyncio.wait_for(agent.asked.wait(), PATIENCE_S)
        await asyncio.sleep(1.0)  # until the buffers in between are full
        assert await sidecar.end(signal.SIGTERM) == (0 if fields else 1)


# --- memory


async def test_transfers_go_on_whole_while_little_of_them_is_held_and_when_it_is_over(
    world: World, agent: Agent
) -> None:
    """In both directions, begun before memory is nearly short, meanwhile and later."""
    sidecar = await world.sidecar(WRITER, world.settings())
    parts = sidecar.server.parts
    planner = calling(await world.source(PLANNER), WRITER)

    def hold(*, little: bool) -> None:
        for listener in parts.listeners:
            listener.brace() if little else listener.relax()
        for pool in parts.pools:
            pool.hold(little=little)

    def held_of_agent() -> set[int | None]:
        return {receive_buffer(one.transport) for pool in parts.pools for one in pool.connections}

    async with AsyncExitStack() as stack:

        async def begin() -> list[asyncio.Future[str]]:
            down, up = [await stack.enter_async_context(world.kept(sidecar.inbound, planner)) for _ in range(2)]
            ask(down, "GET")
            ask(up, "POST", b"Content-Length: %d" % SIZE)
            return [asyncio.ensure_future(download(down)), asyncio.ensure_future(upload(up, agent.go))]

        transfers = await begin()
        for _ in transfers:
            async with asyncio.timeout(PATIENCE_S):
                await agent.halfway.acquire()
        assert held_of_agent() == {64 * 1024}
        hold(little=True)
        assert held_of_agent() == {32 * 1024}
        agent.go.set()
        transfers += await begin()
        assert await asyncio.gather(*transfers) == [HASH] * 4
        hold(little=False)
        assert held_of_agent() == {64 * 1024}
        assert await asyncio.gather(*await begin()) == [HASH] * 2


def peak_kib(sidecar: Running) -> int:
    """Return the process's peak memory."""
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


async def settled(count: list[int] | Agent) -> int:
    """Return the number of bytes sent, once it no longer grows."""
    seen = -1
    async with asyncio.timeout(PATIENCE_S):
        while True:
            now = count.flooded if isinstance(count, Agent) else count[0]
            if now == seen:
                return now
            seen = now
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("switch", [False, True], ids=["events", "websocket"])
async def test_a_caller_that_does_not_read_costs_no_memory(world: World, agent: Agent, switch: bool) -> None:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world))
        caller = await connected(world, stack, sidecar)
        before = peak_kib(sidecar)
        (ask_to_switch if switch else lambda kept, field: ask(kept, "GET", field))(caller, b"X-Flood: answer")
        await head_of(caller)  # and then no more: the reader buffers 128 KiB and pauses
        assert await settled(agent) < ENOUGH
        assert peak_kib(sidecar) - before < 16 * 1024


@pytest.mark.parametrize("switch", [False, True], ids=["body", "websocket"])
async def test_an_agent_that_does_not_read_costs_no_memory(world: World, agent: Agent, switch: bool) -> None:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(process(world))
        caller = await connected(world, stack, sidecar)
        before = peak_kib(sidecar)
        if switch:
            ask_to_switch(caller, b"X-Flood: request")
            await head_of(caller)
        else:
            ask(caller, "POST", b"Content-Length: %d" % ENOUGH, b"X-Flood: request")
        sent = [0]

        async def push() -> None:
            while sent[0] < ENOUGH:
                caller.writer.write(PIECE)
                sent[0] += len(PIECE)
                await caller.writer.drain()

        pushing = asyncio.ensure_future(push())
        assert await settled(sent) < ENOUGH
        assert peak_kib(sidecar) - before < 16 * 1024
        pushing.cancel()
