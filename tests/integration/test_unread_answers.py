"""Answers that one peer does not read, in front of an agent with few threads: the agent goes on serving others."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress

import pytest
from h2.settings import SettingCodes

from sidecar.identity.tls import client_context
from tests.integration.h2_caller import H2Caller, asks, speaking_http2
from tests.integration.hops import Hops
from tests.integration.world import CRM, PLANNER, WRITER, bearer, mint

pytestmark = pytest.mark.integration

THREADS = 24
LONG = 2 * 1024 * 1024  # more than all buffers on the way hold
HTTP2 = {"protocols": {"http2": True}}


class ThreadedAgent:
    """An agent that writes each answer from one of a few threads, as servers of WSGI do. ``x-long`` is its length."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._closing = False
        self._threads = ThreadPoolExecutor(THREADS)
        self._accepting = ThreadPoolExecutor(1)
        self._accepting.submit(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.add(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            self._threads.submit(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and not self._closing:
                data = connection.recv(65536)
                if not data:
                    break
                head += data
            else:
                size = int(head.partition(b"x-long: ")[2].partition(b"\r\n")[0] or b"2")
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
                connection.sendall(b"x" * size)
        self._open.discard(connection)

    def close(self) -> None:
        self._closing = True
        for one in tuple(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.shutdown()
        self._threads.shutdown()


@pytest.fixture
async def agent(hops: Hops) -> AsyncIterator[ThreadedAgent]:
    agent = ThreadedAgent()
    settings = hops.settings(**HTTP2, route={"peers": [str(PLANNER), str(CRM)]})
    settings["inbound"]["agent"] = f"http://127.0.0.1:{agent.port}"
    hops.writer = await hops.world.sidecar(WRITER, settings)
    yield agent
    await asyncio.to_thread(agent.close)


async def as_peer(hops: Hops, peer: str, version: str = "http/1.1") -> ssl.SSLContext:
    found = {"planner": PLANNER, "crm": CRM}[peer]
    return client_context(await hops.world.source(found), expected=WRITER, alpn=(version,))


def token_of(peer: str) -> str:
    return mint(
        {"act": {"sub": PLANNER if peer == "planner" else CRM}, "client_id": PLANNER if peer == "planner" else CRM}
    )


async def answered(hops: Hops, context: ssl.SSLContext, peer: str, *, calls: int = 20) -> float:
    """Make calls of another peer, one after the other; return the longest time of one."""
    slowest = 0.0
    for _ in range(calls):
        began_at = time.monotonic()
        answer = await hops.world.call(hops.writer.inbound, context, headers=bearer(token_of(peer)))
        assert answer.status == 200
        slowest = max(slowest, time.monotonic() - began_at)
    return slowest


def shut_windows(caller: H2Caller) -> None:
    """Let no content come: no stream has a window, now or later."""
    caller.peer.opens = False
    caller.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    caller.send()


async def test_a_peer_that_opens_no_window_holds_no_agent_from_others(hops: Hops, agent: ThreadedAgent) -> None:
    """4 connections with 100 streams each, and again whatever was cut: of 24 threads 8 stay for others."""
    attacker, other = await as_peer(hops, "planner", "h2"), await as_peer(hops, "crm")
    long = [*bearer(token_of("planner")), ("x-long", str(LONG))]
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(speaking_http2(hops.writer.inbound, attacker)) for _ in range(4)]
        for caller in callers:
            shut_windows(caller)

        async def attack() -> None:
            while True:
                for caller in callers:
                    running = [one for one in caller.peer.answers.values() if not (one.ended or one.reset is not None)]
                    for _ in range(min(10, 100 - len(running))):
                        stream_id = caller.begin(asks(method="GET", headers=long))
                        caller.peer.answer(stream_id)
                await asyncio.sleep(0.02)

        attacking = asyncio.ensure_future(attack())
        try:
            await hops.writer.wait_for_records(30)  # the first ones were cut
            await asyncio.sleep(0)
            assert await answered(hops, other, "crm") < 5.0
        finally:
            attacking.cancel()
            await asyncio.gather(attacking, return_exceptions=True)
    reasons = {record["reason"] for record in hops.writer.records() if record["peer"] == str(PLANNER)}
    assert "overloaded" in reasons
    assert "ok" not in reasons
    assert {record["reason"] for record in hops.writer.records() if record["peer"] == str(CRM)} == {"ok"}


async def test_a_peer_that_stops_to_read_http1_holds_no_agent_from_others(hops: Hops, agent: ThreadedAgent) -> None:
    attacker, other = await as_peer(hops, "planner"), await as_peer(hops, "crm")
    lines = ["GET /draft HTTP/1.1", "host: writer", f"x-long: {8 * LONG}"]
    lines += [f"{name}: {value}" for name, value in bearer(token_of("planner"))]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n"
    writers = []
    try:
        for _ in range(60):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", hops.writer.inbound, ssl=attacker, server_hostname="sidecar"
            )
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request)
            writers.append(writer)
        await hops.writer.wait_for_records(30)
        assert await answered(hops, other, "crm") < 5.0
    finally:
        for writer in writers:
            writer.transport.abort()
    reasons = {record["reason"] for record in hops.writer.records() if record["peer"] == str(PLANNER)}
    assert "peer_slow" in reasons


async def test_slow_readers_get_all_of_their_answers(hops: Hops, agent: ThreadedAgent) -> None:
    """The same peer with twelve streams, each of which it reads in pieces, a second apart."""
    context = await as_peer(hops, "planner", "h2")
    long = [*bearer(token_of("planner")), ("x-long", str(LONG))]
    async with speaking_http2(hops.writer.inbound, context) as caller:
        caller.peer.opens = False
        streams = [caller.begin(asks(method="GET", headers=long)) for _ in range(12)]
        for _ in range(6):
            await asyncio.sleep(1.0)
            caller.peer.h2.increment_flow_control_window(12 * LONG // 6)
            for stream_id in streams:
                caller.peer.h2.increment_flow_control_window(LONG // 6 + 6, stream_id)
            caller.send()
        answers = [await caller.until(stream_id) for stream_id in streams]
    assert [(one.status, len(one.content)) for one in answers] == [(200, LONG)] * 12
