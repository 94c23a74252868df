"""HTTP/2 connections to upstreams that send more than they are asked for: it waits in their sockets, or ends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from delegation_core.errors import Reason
from sidecar.wire.connections import Connections
from sidecar.wire.h2_client import MAX_EXCHANGES, H2ClientConnection
from sidecar.wire.h2_exchange import H2Exchange
from sidecar.wire.limits import ClientLimits
from sidecar.wire.upstream import Upstream
from tests.wire.bench import Clock, RecordingTransport
from tests.wire.h2_bench import frame
from tests.wire.test_h2_client import LINES, Sink

HEAD = b"\x88"  # :status 200


class Called:
    """A connection on a recording transport, whose upstream has sent its settings. ``spares`` went to the pool."""

    def __init__(self, *, settings: bool = True) -> None:
        self.spares: list[Upstream] = []
        self.closed: list[object] = []
        self.clock = Clock()
        self.connections: Connections[Any] = Connections(interval_s=3600, clock=self.clock)
        self.transport = RecordingTransport()
        self.connection = H2ClientConnection(
            ClientLimits(), self.connections, on_idle=self.spares.append, on_closed=self.closed.append, max_age_s=1e9
        )
        self.connection.connection_made(self.transport)
        if settings:
            self.settle_on()

    def settle_on(self, streams: int | None = None) -> None:
        """Send the upstream's settings, perhaps with the number of streams that it allows."""
        self.connection.data_received(frame(4, 0, 0, b"" if streams is None else b"\0\3" + streams.to_bytes(4)))

    def ask(self, method: str = "GET", body: bytes = b"") -> tuple[H2Exchange, Sink]:
        exchange, sink = self.connection.spare(), Sink()
        exchange.ask(method, b"/a", LINES, sink, body=body)
        return exchange, sink

    async def settle(self) -> None:
        while len(self.connections.turns):  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0)


async def test_heads_on_a_stream_that_was_reset_are_a_flood() -> None:
    called = Called()
    given_up, _ = called.ask()
    _, other = called.ask()
    given_up.abort()
    called.connection.data_received(frame(1, 4, 1, HEAD) * 20)
    await called.settle()
    ended = [called.transport.aborted]
    called.connection.data_received(frame(1, 4, 1, HEAD) * 200)
    await called.settle()
    ended.append(called.transport.aborted)
    assert ended == [False, True]
    assert other.error is not None
    assert other.error.reason is Reason.UPSTREAM_BAD_RESPONSE


async def test_answers_to_callers_who_cancel_are_no_flood_of_the_upstream() -> None:
    called = Called()
    _, other = called.ask("POST")
    for _ in range(30):
        called.clock.now += 1
        for _ in range(40):
            given_up, _ = called.ask()
            number = given_up.stream_id
            given_up.abort()
            called.connection.data_received(frame(1, 4, number, HEAD) + frame(1, 5, number, b"\x00\x01x\x01y"))
        await called.settle()
        assert not called.transport.aborted
    assert other.error is None


async def test_a_head_above_the_upstreams_setting_is_refused_alone() -> None:
    called = Called()
    called.connection.data_received(frame(4, 0, 0, b"\0\6" + (1000).to_bytes(4)))
    _, other = called.ask()
    refused: list[Sink] = []
    written = len(called.transport.written)
    for method, body in (("GET", b""), ("POST", b"body")):
        exchange, sink = called.connection.spare(), Sink()
        exchange.ask(method, b"/" + b"a" * 1000, LINES, sink, body=body)
        refused.append(sink)
    exchange, sink = called.connection.spare(), Sink()
    exchange.start("POST", b"/" + b"a" * 1000, LINES, length=None, sink=sink)
    exchange.send_body(b"body")
    exchange.end_body()
    refused.append(sink)
    await asyncio.sleep(0.01)
    assert [sink.error.reason for sink in refused if sink.error is not None] == [Reason.HEAD_TOO_LARGE] * 3
    assert b"a" * 1000 not in called.transport.written[written:]
    assert other.error is None
    assert not called.transport.aborted
    exchange, sink = called.connection.spare(), Sink()
    exchange.ask("GET", b"/" + b"a" * 500, LINES, sink)
    await asyncio.sleep(0.01)
    assert b"a" * 500 in called.transport.written[written:]
    assert sink.error is None


async def test_answers_that_wait_for_their_callers_leave_the_window_of_others() -> None:
    called = Called()
    slow = []
    while called.connection.accepts:
        exchange, _ = called.ask()
        slow.append(exchange)
        called.connection.data_received(frame(1, 4, exchange.stream_id, HEAD) + frame(0, 0, exchange.stream_id, b"x"))
        exchange.pause_reading()
        most = frame(0, 0, exchange.stream_id, bytes(16_000)) * 3 + frame(0, 1, exchange.stream_id, bytes(16_000))
        called.connection.data_received(most)
        await called.settle()
    assert len(slow) == MAX_EXCHANGES
    slow[0].resume_reading()
    assert called.connection.accepts


@pytest.mark.parametrize("frames", [10, 200])
@pytest.mark.parametrize("lost_first", [False, True])
async def test_an_answer_that_came_before_the_upstreams_fin_is_whole(frames: int, lost_first: bool) -> None:
    called = Called()
    _, sink = called.ask()
    _, other = called.ask()
    called.connection.data_received(frame(1, 4, 1, HEAD) + frame(0, 0, 1, b"x") * frames + frame(0, 1, 1, b"y"))
    called.connection.eof_received()
    called.transport.close()
    if lost_first:
        called.connection.connection_lost(None)
    await called.settle()
    if not lost_first:
        called.connection.connection_lost(None)
    assert (len(sink.content), sink.events[-1]) == (frames + 1, "whole" if frames == 10 else "end")
    assert other.events == ["error upstream_unreachable"]
    assert called.closed.count(called.connection) == 1


async def test_a_fault_behind_the_upstreams_fin_ends_the_connection() -> None:
    called = Called()
    _, sink = called.ask()
    called.connection.data_received(frame(1, 4, 1, HEAD) + frame(0, 0, 1, b"x") * 100 + frame(9, 4, 1, b""))
    called.connection.eof_received()
    called.transport.close()
    called.connection.connection_lost(None)
    await called.settle()
    assert sink.events[-1] == "error upstream_bad_response"
    assert called.closed.count(called.connection) == 1


async def test_an_upstream_that_takes_nothing_is_not_answered_without_end() -> None:
    called = Called()
    given_up, _ = called.ask()
    _, other = called.ask()
    given_up.abort()
    called.connection.pause_writing()
    for _ in range(300):
        called.connection.data_received(frame(0, 0, 1, b"x") * 60)
        await called.settle()
    assert (called.transport.aborted, other.error is not None) == (True, True)
    assert len(called.transport.written) < 70_000


async def test_one_that_takes_something_now_and_then_is() -> None:
    called = Called()
    given_up, _ = called.ask()
    given_up.abort()
    for _ in range(100):
        called.connection.pause_writing()
        called.connection.data_received(frame(0, 0, 1, b"x") * 60)
        called.connection.resume_writing()
        await called.settle()
    assert not called.transport.aborted


async def test_the_upstreams_limit_is_known_before_a_second_request() -> None:
    called = Called(settings=False)
    called.ask()
    assert (called.connection.accepts, called.spares) == (False, [])
    called.settle_on(2)
    assert called.spares[0].usable
    called.spares[0].ask("GET", b"/a", LINES, Sink())
    assert (called.connection.accepts, len(called.spares)) == (False, 1)


async def test_a_limit_that_shrinks_takes_back_what_the_pool_has() -> None:
    called = Called()
    called.ask()
    (spare,) = called.spares
    called.settle_on(1)
    assert not spare.usable
    called.settle_on(2)
    assert called.spares[1].usable


async def test_frames_of_no_request_keep_no_connection_to_an_upstream() -> None:
    called = Called()
    exchange, _ = called.ask()
    called.connection.data_received(frame(1, 5, exchange.stream_id, HEAD))
    for _ in range(4):
        assert not called.transport.closed
        called.clock.now += 10.0
        called.connection.data_received(frame(6, 0, 0, bytes(8)))
        called.connection.sweep(called.clock.now)
    assert called.transport.closed
