"""A whole upstream connection: any bytes as the answers to one request after another.

Properties: each request gets one end, and nothing after it; a truncated answer is never reported as complete; bytes
beyond an answer belong to no answer, and their connection is not reused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

from delegation_core.errors import Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.h1_client import ClientConnection, Pause
from sidecar.wire.h1_reader import AnswerReader
from sidecar.wire.message import Response
from sidecar.wire.upstream import Line
from tests.fuzz.inbound_world import InlineLoop
from tests.fuzz.of_bodies import LIMITS, read_answer, read_answered
from tests.fuzz.of_others import end_of
from tests.fuzz.properties import chance, little_at_a_time, pieces, quiet
from tests.wire.bench import Clock, RecordingTransport
from tests.wire.test_h1_client import check_state

_ENDINGS = frozenset(
    {
        Reason.UPSTREAM_BAD_RESPONSE,
        Reason.UPSTREAM_ABORTED,
        Reason.UPSTREAM_UNREACHABLE,
    }
)


@dataclass
class Asked:
    """One request and its events; ``came`` are the bytes that arrived while it waited."""

    method: str
    came: bytes = b""
    head: Response | None = None
    content: bytes = b""
    ended: bool = False
    error: SidecarError | None = None
    events: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.ended or self.error is not None

    def on_whole_response(self, head: Response, data: bytes) -> None:
        self.on_response(head, data)
        self.ended = True

    def on_response(self, head: Response, data: bytes) -> None:
        assert self.head is None
        assert not self.over
        self.head = head
        self.content = data

    def on_response_data(self, data: bytes) -> None:
        assert self.head is not None
        assert not self.over
        assert data
        self.content += data

    def on_response_end(self) -> None:
        assert not self.over
        self.ended = True

    def on_response_error(self, error: SidecarError) -> None:
        assert not self.over
        self.error = error

    def on_response_flush(self) -> None:
        pass

    def on_upstream_pause(self) -> None:
        pass

    def on_upstream_resume(self) -> None:
        pass


def answer_stream(data: bytes) -> None:
    """One upstream connection's life."""
    loop = InlineLoop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]
    try:
        with little_at_a_time(data):
            _live(data, chance(data), loop)
    finally:
        asyncio._set_running_loop(before)


def _live(data: bytes, random: Random, loop: InlineLoop) -> None:
    clock = Clock()
    connections: Connections[Line] = Connections(interval_s=3600, clock=clock)
    given_back: list[ClientConnection] = []
    transport = RecordingTransport()
    transport.settle = connections.writes.write_all
    connection = ClientConnection(
        LIMITS, connections, on_idle=given_back.append, on_closed=lambda _: None, max_age_s=3600
    )
    connection.connection_made(transport)
    asked: list[Asked] = []

    def ask() -> None:
        asked.append(Asked(random.choice(("GET", "GET", "HEAD", "POST"))))
        if asked[-1].method != "POST":
            connection.ask(asked[-1].method, b"/", b"host: a\r\n", asked[-1])
            return
        connection.start("POST", b"/", b"host: a\r\n", length=3, sink=asked[-1])
        if random.random() < 0.8:  # otherwise the answer comes before the request is complete
            connection.send_body(b"abc")
            connection.end_body()
        connection.flush()

    ask()
    for piece in pieces(data, random):
        if connection.reading_paused & Pause.FOR_TURN:
            _settle(loop)
        if transport.is_closing():
            break
        assert transport.reading, "nothing waits, and nobody reads"
        waiting = asked[-1] if not asked[-1].over else None
        connection.data_received(piece)
        if waiting is None:
            assert transport.is_closing(), "bytes that nobody asked for, and the connection lives on"
        else:
            waiting.came += piece
            if random.random() < 0.3 and connection.reading_paused & Pause.FOR_TURN:
                continue  # the connection may end before its turn
            _settle(loop)
            _as_read_alone(waiting)
            check_state(connection)
            if connection.usable:
                assert end_of(waiting.came, waiting.method) == len(waiting.came), (
                    "bytes beyond an answer, and it lives on"
                )
        if asked[-1].over and random.random() < 0.5:
            clock.now += 0.05  # silence, after an answer that may have had content nevertheless
            connection._look_for_silence()
        if asked[-1].over and connection.usable and random.random() < 0.9:
            assert given_back, "a connection that was not given back is free"
            ask()
    last = asked[-1]
    if not transport.is_closing() and random.random() < 0.8:
        connection.eof_received()
    connection.connection_lost(None)
    _settle(loop)
    assert last.over, "a request that waits for ever"
    if last.error is not None:
        assert last.error.reason in _ENDINGS
        quiet(last.error)
    else:
        reader = AnswerReader(LIMITS)
        reader.expect(last.method)
        read_answered(reader, last.came)
        assert reader.complete or reader.ends_with_connection, "an answer that was cut is told as whole"
    assert not connection.usable


def _settle(loop: InlineLoop) -> None:
    """Run until nothing is left to do."""
    while loop.go_on():
        pass


def _as_read_alone(asked: Asked) -> None:
    """Check that the events so far match a reading of all bytes at once, without a connection."""
    alone = read_answer([asked.came], asked.method)
    assert asked.ended == alone.complete
    assert (asked.error is None) == (alone.refusal is None)
    if alone.refusal is None:
        assert (asked.head, asked.content) == (alone.head, alone.content)
    elif asked.head is not None and alone.head is not None:
        assert asked.head == alone.head
