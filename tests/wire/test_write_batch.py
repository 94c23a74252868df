"""Writes of one event-loop iteration leave together, in order, and never after the end."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

import pytest

from sidecar.engine import native_writes
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.scheduling import MOST_TOGETHER, WriteBatch
from sidecar.wire.stream import Stream
from sidecar.wire.upstream import Line
from tests.native import needs_native
from tests.wire.bench import Handler, RecordingTransport, answer_ok
from tests.wire.test_h1_client import Sink
from tests.wire.written import passed

LONG = b"x" * (16 * 1024 + 1)


@pytest.fixture(autouse=True, params=[WriteBatch, pytest.param(native_writes, marks=needs_native)])
def either_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(most: int = MOST_TOGETHER) -> object:
        return request.param(most)

    monkeypatch.setattr(sys.modules[__name__], "WriteBatch", make)
    monkeypatch.setattr("sidecar.wire.connections.WriteBatch", make)


class Ordered(RecordingTransport):
    """WriteBatch down when each write came, of all writes there are."""

    numbers = count()

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self.order.append(next(self.numbers))


async def round_ends() -> None:
    await asyncio.sleep(0)


async def test_the_writes_of_a_round_leave_at_its_end_in_their_order() -> None:
    writes, one, other = WriteBatch(), Ordered(), Ordered()
    writes.defer(other, b"b")
    writes.defer(one, b"a")
    writes.defer(other, b"c")
    assert (one.writes, other.writes) == ([], [])
    await round_ends()
    assert (one.writes, other.writes) == ([b"a"], [b"b", b"c"])
    assert other.order[0] < one.order[0] < other.order[1]


async def test_each_round_has_an_end() -> None:
    writes, transport = WriteBatch(), Ordered()
    for written in (b"a", b"b"):
        writes.defer(transport, written)
        await round_ends()
        assert transport.writes[-1] == written


async def test_so_many_wait_at_most() -> None:
    writes, transports = WriteBatch(3), [Ordered() for _ in range(4)]
    for transport in transports:
        writes.defer(transport, b"a")
    assert [transport.written for transport in transports] == [b"a", b"a", b"a", b""]
    await round_ends()
    assert transports[3].written == b"a"
    assert MOST_TOGETHER == 32


async def test_a_long_write_waits_not_and_leaves_after_those_before_it() -> None:
    writes, transport = WriteBatch(), Ordered()
    writes.defer(transport, LONG[1:])
    assert transport.writes == []
    writes.defer(transport, LONG)
    assert transport.writes == [LONG[1:], LONG]


async def test_to_who_is_gone_nothing_is_written_and_others_go_on() -> None:
    writes, gone, stays = WriteBatch(), Ordered(), Ordered()
    writes.defer(gone, b"a")
    writes.defer(stays, b"b")
    gone.abort()
    await round_ends()
    assert (gone.order, stays.written) == ([], b"b")


async def test_a_write_that_fails_costs_its_own_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ordered):
        def write(self, _data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("a bug")

    writes, broken, sound = WriteBatch(), Broken(), Ordered()
    writes.defer(broken, b"a")
    writes.defer(sound, b"b")
    await round_ends()
    assert (broken.aborted, sound.written) == (True, b"b")
    assert "a write failed" in caplog.text


async def test_who_writes_out_while_it_is_written_out_leaves_nothing_for_after_it() -> None:
    class Pausing(Ordered):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            if data == b"a":  # who is told that it takes no more may end it
                writes.defer(self, b"c")
                writes.write_all()
                self.write_eof()

    writes, transport = WriteBatch(), Pausing()
    writes.defer(transport, b"a")
    writes.defer(transport, b"b")
    await round_ends()
    assert (transport.writes, transport.aborted) == ([b"a", b"b", b"c"], False)


# --- on a server connection: each of these would lose or swap an answer


class Serving:
    """A server connection whose writes really wait for the end of the round."""

    def __init__(self) -> None:
        self.connections: Connections[ServerConnection] = Connections(interval_s=3600)
        self.transport = RecordingTransport()
        self.connection = ServerConnection(Handler(answer_ok), ServerLimits(), self.connections)
        self.connection.connection_made(self.transport)

    def ask(self, *fields: bytes) -> None:
        lines = b"".join(b"%b\r\n" % field for field in fields)
        self.connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % lines)
        assert not fields or self.transport.writes


async def test_an_answer_waits_for_the_end_of_the_round() -> None:
    serving = Serving()
    serving.ask()
    assert serving.transport.writes == []
    await round_ends()
    assert serving.transport.written.endswith(b"\r\n\r\nok")


async def test_answers_of_pipelined_requests_leave_in_order() -> None:
    serving = Serving()
    numbers = count(1)

    def act(exchange: Stream) -> None:
        exchange.answer(200, [], b"%d" % next(numbers))

    serving.connection.handler = Handler(act)
    serving.connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    while len(serving.connections.turns):
        await round_ends()
    await round_ends()
    assert [part[0:1] for part in serving.transport.written.split(b"\r\n\r\n")[1:]] == [b"1", b"2", b"3"]


async def test_the_last_answer_leaves_before_the_connection_closes() -> None:
    serving = Serving()
    serving.ask(b"Connection: close")
    assert (b"\r\n\r\nok" in serving.transport.written, serving.transport.closed) == (True, True)


@pytest.mark.parametrize("end", ["finish", "give_up", "cut_off", "eof_received"])
async def test_an_answer_that_was_put_off_leaves_before_its_connection_ends(end: str) -> None:
    serving = Serving()
    serving.ask()
    getattr(serving.connection, end)()
    assert b"\r\n\r\nok" in serving.transport.written


async def test_the_beginning_of_an_answer_leaves_before_a_reset_says_that_the_rest_is_missing() -> None:
    def cut_short(exchange: Stream) -> None:
        exchange.send_head(*passed(200, None))
        exchange.send_data(b"begun")
        exchange.abort()

    serving = Serving()
    serving.connection.handler = Handler(cut_short)
    serving.connection.data_received(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert serving.transport.aborted
    assert serving.transport.written.endswith(b"\r\n\r\nbegun")


# --- on an upstream connection


@pytest.mark.parametrize("end", ["send_no_more", "leave"])
async def test_what_goes_upstream_leaves_before_that_direction_ends(end: str) -> None:
    connections: Connections[Line] = Connections(interval_s=3600)
    transport = RecordingTransport()
    upstream = ClientConnection(
        ClientLimits(), connections, on_idle=lambda _: None, on_closed=lambda _: None, max_age_s=60
    )
    upstream.connection_made(transport)
    upstream.ask("GET", b"/", b"host: a\r\n", Sink())
    getattr(upstream, end)()
    assert transport.ended
    assert transport.written.startswith(b"GET / HTTP/1.1\r\n")
