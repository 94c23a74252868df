"""Whole connections, and every event besides bytes, in any order: pauses, ends, deadlines, a drain.

The input only supplies chance: peers send whole requests, as malformed bytes have their own harnesses. Properties for
any order: nothing raises; each request leaves one closed record, never of a bug; no handle, stream or upstream
connection in use is left behind. Nothing is done to a transport that an event loop would not accept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from delegation_core.errors import Denied, Reason, Unavailable
from sidecar.wire.h1_client import ClientConnection, State
from sidecar.wire.h1_server import ServerConnection
from tests.fuzz.agent import Agent
from tests.fuzz.inbound_world import InboundWorld, InlineLoop, token
from tests.fuzz.properties import chance, little_at_a_time, pieces

_FIELDS: Final = b"Host: agent\r\nAuthorization: Bearer $TOKEN\r\n"
_WEBSOCKET: Final = (
    b"GET /docs/ws HTTP/1.1\r\n%bConnection: Upgrade\r\nUpgrade: websocket\r\n" % _FIELDS
    + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
REQUESTS: Final = (
    b"GET /docs/a HTTP/1.1\r\n%b\r\n" % _FIELDS,
    b"HEAD /docs/a HTTP/1.1\r\n%b\r\n" % _FIELDS,
    b"GET /docs/a HTTP/1.0\r\n%b\r\n" % _FIELDS,
    b"GET /nowhere HTTP/1.1\r\nHost: agent\r\n\r\n",
    b"POST /search HTTP/1.1\r\n%bContent-Length: 5\r\n\r\nhello" % _FIELDS,
    b"POST /search HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % _FIELDS,
    b"POST /search HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (_FIELDS, b"1\r\nx\r\n" * 20),
    b"POST /search HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc broken" % _FIELDS,
    b"POST /search HTTP/1.1\r\nHost: agent\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /docs/a HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 500\r\n\r\n" % _FIELDS + b"x" * 500,
    b"no HTTP\r\n\r\n",
    _WEBSOCKET,
    _WEBSOCKET,
    _WEBSOCKET + b"\x81\x82abcd12",
    _WEBSOCKET + b"\x82\x80abcd" * 20,
    _WEBSOCKET + b"\x82\x80abcd" * 20 + b"\x88\x80abcd",
    _WEBSOCKET + b"\x88\x80abcd",
)
# Bytes of agents besides their answers: a second answer, frames, unrequested bytes.
SAYINGS: Final = (
    b"5\r\nhello\r\n",
    b"1\r\nx\r\n" * 20,
    b"1\r\nx\r\n" * 20 + b"0\r\n\r\n",
    b"0\r\n\r\n",
    b"x",
    b"\x81\x01a",
    b"\x81\x05",
    b"\x82\x00" * 20,
    b"\x88\x00",
)
DRAINING: Final = Unavailable(Reason.DRAINING)


def event_orders(data: bytes) -> None:
    """One connection's life."""
    loop = InlineLoop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]
    try:
        with little_at_a_time(data):
            _Life(chance(data), loop).live()
    finally:
        asyncio._set_running_loop(before)


class _Life:
    """One possible course of events, and its execution."""

    def __init__(self, random: Random, loop: InlineLoop) -> None:
        self._random = random
        self._loop = loop
        self._world = world = InboundWorld(random)
        stream = b"".join(random.choices(REQUESTS, k=random.randint(1, 4))).replace(b"$TOKEN", token())
        self._coming = pieces(stream, random)
        self._slow: set[object] = set()
        self._gone: set[object] = set()
        world.server._half_closes = random.random() < 0.5  # as for a connection without TLS

    def live(self) -> None:
        """Run until the peer's connection is gone, and everything left is done."""
        server, connections = self._world.server, self._world.connections
        often: list[Callable[[], object]] = [self._bytes_come, self._world.turn, self._world.turn]
        seldom: list[Callable[[], object]] = [
            self._the_peer_ends,
            self._somebody_is_slow_or_catches_up,
            self._somebody_is_slow_or_catches_up,
            self._an_agent_says_something,
            self._an_agent_is_lost,
            self._time_passes,
            self._a_timer_comes,
            self._something_must_end,
            lambda: server.stop(DRAINING),
            server.finish,
            lambda: connections.drain(1.0, 5.0),
            server.give_up,
            lambda: server.give_way(Unavailable(Reason.OVERLOADED)),
        ]
        for _ in range(self._random.randint(5, 80)):
            exchange = server.stream
            is_tunnel = exchange is not None and exchange.switched
            self._random.choice(often if self._random.random() < (0.3 if is_tunnel else 0.8) else seldom)()
            if self._random.random() < 0.3:
                self._what_was_closed_is_gone()
            if server in self._gone:
                break
        if server not in self._gone:
            server.connection_lost(None)
        self._world.settle()
        while self._loop.timers:
            self._a_timer_comes()
        self._check()

    def _bytes_come(self) -> None:
        transport = self._world.transport
        if self._coming and transport.reading and not transport.is_closing():
            self._world.server.data_received(self._coming.pop(0))

    def _the_peer_ends(self) -> None:
        transport = self._world.transport
        if transport.reading and not transport.is_closing() and "peer" not in self._gone:
            self._gone.add("peer")
            self._coming.clear()
            if not self._world.server.eof_received() and not transport.is_closing():
                transport.close()

    def _somebody_is_slow_or_catches_up(self) -> None:
        ends: list[ServerConnection | ClientConnection] = [self._world.server, *self._upstreams()]
        one = self._random.choice(ends)
        if one in self._slow:
            self._slow.remove(one)
            one.resume_writing()
        elif not one.transport.is_closing():
            self._slow.add(one)
            one.pause_writing()

    def _an_agent_says_something(self) -> None:
        for one in self._upstreams()[-1:]:
            if isinstance(one.transport, Agent) and one.transport.reading and not one.transport.is_closing():
                one.data_received(self._random.choice(SAYINGS))

    def _an_agent_is_lost(self) -> None:
        for one in self._upstreams()[-1:]:
            self._lose(one)

    def _time_passes(self) -> None:
        self._world.clock.now += self._random.choice([0.3, 5.0, 40.0, 100.0])
        self._world.server.sweep(self._world.clock.now)
        for one in self._upstreams():
            one.sweep(self._world.clock.now)

    def _a_timer_comes(self) -> None:
        if self._loop.timers:
            handle, callback = self._loop.timers.pop(0)
            self._world.clock.now += 0.05  # it took time to arrive
            if not handle.cancelled():
                callback()

    def _something_must_end(self) -> None:
        for one in tuple(self._world.watch.young):
            one.end(Denied(Reason.TOKEN_EXPIRED))

    def _what_was_closed_is_gone(self) -> None:
        server = self._world.server
        if server.transport.is_closing() and server not in self._gone:
            self._gone.add(server)
            server.connection_lost(None)
        for one in self._upstreams():
            if one.transport.is_closing():
                self._lose(one)

    def _lose(self, one: ClientConnection) -> None:
        self._gone.add(one)
        one.transport.abort()
        one.connection_lost(None)

    def _upstreams(self) -> list[ClientConnection]:
        """Return the live ones, the newest last."""
        connections = [agent.connection for agent in self._world.agents.all]
        return [one for one in connections if one not in self._gone]

    def _check(self) -> None:
        world, records = self._world, self._world.records
        assert len(records.made) == len(world.served) + len(world.refused), "not one record for each request"
        assert set(records.closed) == {entry.request_id for entry in records.made}, "a record that is not closed"
        for record in records.closed.values():
            assert record["reason"] != "internal", record
        assert len(world.handles) == len(world.watch) == 0, "something outlives its request"
        assert len(world.connections.turns) == len(world.agents.connections.turns) == 0, "somebody still waits"
        for one in self._upstreams():
            assert one.usable or one.transport.is_closing() or one.state is State.CLOSED, (
                "an upstream connection is still in use"
            )
