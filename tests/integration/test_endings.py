"""Every way in which a request can end, and its records: one closing record, and one opening if it lasts.

The test plays both the peer and the agent, byte by byte.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.world import (
    PATIENCE_S,
    PLANNER,
    WRITER,
    Kept,
    Record,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\ncontent-length: 20\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"


@dataclass
class ByHand:
    """An agent whose connections the test holds."""

    port: int = 0
    connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=asyncio.Queue)
    taken: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(writer)
        self.connections.put_nowait((reader, writer))


@dataclass
class Act:
    """One request on its way: the caller, the agent, and the sidecar between them."""

    sidecar: Sidecar
    caller: Kept
    agent: ByHand
    head: bytes
    heard: asyncio.StreamReader | None = None
    answering: asyncio.StreamWriter | None = None
    received: bytes = b""

    def ask(self, fields: bytes = b"", body: bytes = b"") -> None:
        self.caller.writer.write(self.head + fields + b"\r\n" + body)

    async def head_arrives(self) -> None:
        """Wait until the sidecar has the beginning of a head."""
        self.caller.writer.write(self.head)
        connections = self.sidecar.server.parts.listeners[0].connections
        await until(lambda: any(connection.receiving for connection in connections))

    async def answer(self, *pieces: bytes) -> None:
        """Answer as the agent; each piece reaches the caller before the next one is sent."""
        if self.answering is None:
            async with asyncio.timeout(PATIENCE_S):
                self.heard, self.answering = await self.agent.connections.get()
                await self.heard.readuntil(b"\r\n\r\n")
        for piece in pieces:
            self.answering.write(piece)
            content = piece.rpartition(b"\r\n\r\n")[2].removeprefix(b"4\r\n").removesuffix(b"\r\n")
            async with asyncio.timeout(PATIENCE_S):
                self.received += await self.caller.reader.readuntil(content)

    def end_answer(self) -> None:
        """Send the last chunk."""
        assert self.answering is not None
        self.answering.write(b"0\r\n\r\n")

    async def hears(self, content: bytes) -> None:
        """Wait until the agent has this much of the body."""
        await self.answer()
        assert self.heard is not None
        async with asyncio.timeout(PATIENCE_S):
            await self.heard.readuntil(content)

    async def last_words(self) -> None:
        """Return the bytes that the caller receives before the sidecar closes."""
        self.received += await self.caller.wait_for_end()

    def crash(self, *, reset: bool) -> None:
        """Crash the agent: its side of the connection is closed, or reset."""
        assert self.answering is not None
        hang_up(self.answering, reset=reset)

    def leave(self, *, reset: bool) -> None:
        """Let the caller leave."""
        hang_up(self.caller.writer, reset=reset)


def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    sock = writer.get_extra_info("socket")
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort() if reset else writer.close()


@asynccontextmanager
async def acting(world: World, **settings: Any) -> AsyncIterator[Act]:
    agent = ByHand()
    agent.port = await world.listen(agent.serve)
    document = world.settings(drain_s=settings.pop("drain_s", 1.0))
    document["inbound"]["agent"] = f"http://127.0.0.1:{agent.port}"
    document["inbound"].update(settings)
    sidecar = await world.sidecar(WRITER, document)
    planner = calling(await world.source(PLANNER), WRITER)
    head = f"POST /draft HTTP/1.1\r\nhost: a\r\nauthorization: {bearer(mint())[0][1]}\r\n".encode()
    async with world.kept(sidecar.inbound, planner) as caller:
        try:
            yield Act(sidecar, caller, agent, head)
        finally:
            for writer in agent.taken:
                writer.transport.abort()


# --- the agent's answer is complete


async def whole(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer(LENGTH + b"all of it.")
    await act.last_words()


async def whole_in_pieces(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer(LENGTH + b"half", b" of it")
    await act.last_words()


async def chunks(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer(CHUNKED + b"4\r\none.\r\n", b"4\r\ntwo.\r\n")
    act.end_answer()
    await act.last_words()


async def until_close(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer(UNTIL_CLOSE + b"one.", b"two.")
    act.crash(reset=False)  # the normal end of such an answer
    await act.last_words()


async def refuses_body_and_leaves(act: Act) -> None:
    act.ask(b"content-length: 9000000\r\n", b"x" * 9_000_000)
    async with asyncio.timeout(PATIENCE_S):
        _, writer = await act.agent.connections.get()
    writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
    hang_up(writer, reset=False)  # a reset nevertheless: it has not read everything
    await act.last_words()


async def events(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer(EVENTS + b"data: one\n", b"data: two\n")
    await act.last_words()


# --- the caller leaves


async def leaves_in_head(act: Act) -> None:
    await act.head_arrives()
    act.leave(reset=True)


async def hangs_up_in_head(act: Act) -> None:
    await act.head_arrives()
    act.leave(reset=False)


async def leaves_in_body(act: Act) -> None:
    act.ask(b"content-length: 100\r\n", b"half")
    await act.hears(b"half")
    act.leave(reset=False)


async def leaves_while_waiting(act: Act) -> None:
    act.ask()
    await act.answer()
    act.leave(reset=False)


async def leaves_with_another_waiting(act: Act) -> None:
    act.ask(body=act.head + b"\r\n")
    await act.answer()
    act.leave(reset=False)


async def leaves_in_body_that_nobody_takes(act: Act) -> None:
    act.ask(b"content-length: 9000000\r\n", b"x" * 8_000_000)
    await act.answer()
    assert act.heard is not None  # the agent reads no more than its reader's buffer
    connections = act.sidecar.server.parts.listeners[0].connections
    await until(lambda: all(one.stream is not None and one.stream.body_paused for one in connections))
    act.leave(reset=True)


async def leaves_in_answer(act: Act) -> None:
    act.ask()
    await act.answer(LENGTH + b"half")
    act.leave(reset=True)


async def takes_nothing(act: Act) -> None:
    """Read what fits into the buffers of a large answer, and then nothing for longer than allowed."""
    act.ask()
    await act.answer()
    assert act.answering is not None
    act.answering.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n" + bytes(50_000_000))
    await act.sidecar.wait_for_records(1)
    act.caller.writer.transport.abort()


async def leaves_in_stream(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    act.leave(reset=True)


# --- the agent fails


async def crashes_before_answer(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer()
    act.crash(reset=True)
    await act.last_words()


async def crashes_in_head(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer()
    assert act.answering is not None
    act.answering.write(b"HTTP/1.1 200 O")
    await act.answering.drain()
    act.crash(reset=False)
    await act.last_words()


async def crashes_in_answer(act: Act) -> None:
    act.ask()
    await act.answer(LENGTH + b"half")
    act.crash(reset=False)
    await act.last_words()


async def resets_stream(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    act.crash(reset=True)
    await act.last_words()


async def breaks_stream(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    assert act.answering is not None
    act.answering.write(b"no size\r\n")
    await act.last_words()


async def says_nothing(act: Act) -> None:
    act.ask(b"connection: close\r\n")
    await act.answer()
    await act.last_words()


async def falls_silent(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    await act.last_words()


# --- limits


async def head_stalls(act: Act) -> None:
    act.caller.writer.write(act.head)
    await act.last_words()


async def body_stalls(act: Act) -> None:
    act.ask(b"content-length: 100\r\n", b"half")
    await act.last_words()


async def body_too_long(act: Act) -> None:
    act.ask(b"transfer-encoding: chunked\r\n", b"64\r\n" + b"x" * 100 + b"\r\n")
    await act.last_words()


async def body_announced_too_long(act: Act) -> None:
    act.ask(b"content-length: 100\r\n")
    await act.last_words()


async def head_too_long(act: Act) -> None:
    act.ask(b"x-long: " + b"x" * 40_000 + b"\r\n")
    await act.last_words()


async def target_too_long(act: Act) -> None:
    act.caller.writer.write(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    await act.last_words()


# --- the sidecar stops


async def stops_between(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    act.sidecar.stop.set()
    await act.answer(b"4\r\ntwo.\r\n")
    act.end_answer()
    await act.last_words()
    assert await act.sidecar.running is True


async def stops_in_head(act: Act) -> None:
    await act.head_arrives()
    act.sidecar.stop.set()
    await act.last_words()
    assert await act.sidecar.running is False


async def stops_while_waiting(act: Act) -> None:
    act.ask()
    await act.answer()
    act.sidecar.stop.set()
    await act.last_words()
    assert await act.sidecar.running is False


async def stops_in_stream(act: Act) -> None:
    act.ask()
    await act.answer(CHUNKED + b"4\r\none.\r\n")
    act.sidecar.stop.set()
    await act.last_words()
    assert await act.sidecar.running is False


Ending = Callable[[Act], Awaitable[None]]
SHORT = {"drain_s": 0.2}


@dataclass(frozen=True, kw_only=True)
class Then:
    """Expected record; ``opened``: preceded by request.opened. ``settings`` cause the ending."""

    reason: str
    status: int | None
    upstream: int | None = None
    decision: str = "allow"
    opened: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


ENDINGS: list[tuple[Ending, Then]] = [
    (whole, Then(reason="ok", status=200, upstream=200)),
    (whole_in_pieces, Then(reason="ok", status=200, upstream=200)),
    (chunks, Then(reason="ok", status=200, upstream=200, opened=True)),
    (until_close, Then(reason="ok", status=200, upstream=200, opened=True)),
    (refuses_body_and_leaves, Then(reason="ok", status=413, upstream=413)),
    (events, Then(reason="ok", status=200, upstream=200, opened=True)),
    (leaves_in_head, Then(reason="peer_gone", status=None, decision="deny")),
    (hangs_up_in_head, Then(reason="bad_request", status=400, decision="deny")),
    (leaves_in_body, Then(reason="peer_gone", status=None)),
    (leaves_while_waiting, Then(reason="peer_gone", status=None)),
    (leaves_with_another_waiting, Then(reason="peer_gone", status=None)),
    (leaves_in_body_that_nobody_takes, Then(reason="peer_gone", status=None)),
    (leaves_in_answer, Then(reason="peer_gone", status=200, upstream=200)),
    (leaves_in_stream, Then(reason="peer_gone", status=200, upstream=200, opened=True)),
    (
        takes_nothing,
        Then(reason="peer_slow", status=200, upstream=200, opened=True, settings={"limits": {"write_timeout_s": 1.5}}),
    ),
    (crashes_before_answer, Then(reason="upstream_unreachable", status=503)),
    (crashes_in_head, Then(reason="upstream_bad_response", status=502)),
    (crashes_in_answer, Then(reason="upstream_aborted", status=200, upstream=200)),
    (resets_stream, Then(reason="upstream_aborted", status=200, upstream=200, opened=True)),
    (breaks_stream, Then(reason="upstream_bad_response", status=200, upstream=200, opened=True)),
    (
        says_nothing,
        Then(reason="upstream_timeout", status=504, settings={"upstream_limits": {"first_byte_timeout_s": 0.2}}),
    ),
    (
        falls_silent,
        Then(
            reason="upstream_timeout",
            status=200,
            upstream=200,
            opened=True,
            settings={"upstream_limits": {"idle_timeout_s": 0.2}},
        ),
    ),
    (head_stalls, Then(reason="timeout", status=408, decision="deny", settings={"limits": {"head_timeout_s": 0.2}})),
    (body_stalls, Then(reason="timeout", status=408, settings={"limits": {"body_timeout_s": 0.2}})),
    (body_too_long, Then(reason="too_large", status=413, settings={"limits": {"max_body_bytes": 99}})),
    (
        body_announced_too_long,
        Then(reason="too_large", status=413, decision="deny", settings={"limits": {"max_body_bytes": 99}}),
    ),
    (head_too_long, Then(reason="head_too_large", status=431, decision="deny")),
    (target_too_long, Then(reason="uri_too_long", status=414, decision="deny")),
    (stops_between, Then(reason="ok", status=200, upstream=200, opened=True, settings={"drain_s": 8.0})),
    (stops_in_head, Then(reason="draining", status=503, decision="deny", settings=SHORT)),
    (stops_while_waiting, Then(reason="draining", status=503, settings=SHORT)),
    (stops_in_stream, Then(reason="draining", status=200, upstream=200, opened=True, settings=SHORT)),
]


@pytest.mark.parametrize(("ending", "then"), ENDINGS, ids=[ending.__name__ for ending, _ in ENDINGS])
async def test_a_request_leaves_one_record_of_how_it_ended(world: World, ending: Ending, then: Then) -> None:
    async with acting(world, **then.settings) as act:
        await ending(act)
        await act.sidecar.wait_for_records(1)
        act.sidecar.stop.set()  # so that a second record would be here too
        await asyncio.wait_for(act.sidecar.running, PATIENCE_S)
    (record,) = act.sidecar.records()
    told = (record["reason"], record["status"], record["upstream_status"], record["decision"])
    assert told == (then.reason, then.status, then.upstream, then.decision)
    assert record["peer"] == PLANNER
    assert record["total_ms"] > 0
    assert_opened(act.sidecar, record, opened=then.opened)
    if act.received and then.reason not in {"peer_gone", "peer_slow"}:  # the caller has read everything
        assert record["bytes_out"] == len(act.received)
    assert record["bytes_in"] > 0


def assert_opened(sidecar: Sidecar, closed: Record, *, opened: bool) -> None:
    told = sidecar.records("request.opened")
    assert len(told) == opened
    for record in told:
        assert record["seq"] < closed["seq"]
        changing = {"event", "seq", "prev", "reason", "status", "detail", "bytes_in", "bytes_out", "total_ms"}
        assert {name: record[name] for name in record.keys() - changing} == {
            name: closed[name] for name in closed.keys() - changing
        }
        assert (record["reason"], record["status"], record["total_ms"]) == ("ok", None, None)


async def test_a_request_that_lasts_is_told_within_a_second(world: World) -> None:
    async with acting(world) as act:
        act.ask()
        await act.answer()
        (opened,) = await act.sidecar.wait_for_records(1, "request.opened")
        assert act.sidecar.records() == []
        assert (opened["decision"], opened["subject"], opened["upstream_status"]) == ("allow", "alice", None)
        await act.answer(LENGTH + b"all of it.")
        (closed,) = await act.sidecar.wait_for_records(1)
        assert closed["request_id"] == opened["request_id"]
        assert closed["total_ms"] > 500
