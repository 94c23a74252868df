from __future__ import annotations

import asyncio
import select
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Reason, SidecarError
from sidecar.wire.connections import Connections
from sidecar.wire.framing import MAX_LINES
from sidecar.wire.h1_client import ClientConnection, Pause, State
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response
from sidecar.wire.upstream import Line
from sidecar.wire.upstream_errors import StaleConnection
from tests.wire.bench import Clock, RecordingTransport
from tests.wire.test_teardown import connected

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sink:
    """Keeps an answer and the order of its events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.status = 0
        self.data = b""
        self.errors: list[SidecarError] = []

    @property
    def reasons(self) -> list[Reason]:
        return [error.reason for error in self.errors]

    def on_whole_response(self, head: Response, data: bytes) -> None:
        self.on_response(head, data)
        self.on_response_end()

    def on_response(self, head: Response, data: bytes) -> None:
        self.status = head.status
        self.events.append("head")
        if data:
            self.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        assert data
        self.data += data
        self.events.append("data")

    def on_response_end(self) -> None:
        self.events.append("end")

    def on_response_error(self, error: SidecarError) -> None:
        self.errors.append(error)
        self.events.append("error")

    def on_response_flush(self) -> None:
        self.events.append("flush")

    def on_upstream_pause(self) -> None:
        self.events.append("pause")

    def on_upstream_resume(self) -> None:
        self.events.append("resume")


# By the state: may a request have a sink, and may reading be paused?
LEGAL = {
    State.IDLE: ({False}, False),
    State.ASKING: ({True}, True),
    State.SENDING: ({True}, True),
    State.ENDING: ({True}, True),
    State.ASKED: ({True}, True),
    State.QUIET: ({False}, False),
    State.RAW: ({True}, True),
    State.BUFFERED: ({True}, True),
    State.CLOSED: ({False}, True),
}


def check_state(connection: ClientConnection) -> None:
    """Check that the state of a connection is one of those that are written down."""
    sinks, may_pause = LEGAL[connection.state]
    has_sink = connection.sink is not None
    assert has_sink in sinks, connection.state
    assert may_pause or not connection.reading_paused, connection.state
    assert connection.state is not State.BUFFERED or connection.reader.rest
    assert connection.warm is None or connection.state is State.ASKED
    assert not connection._early or connection.warm is not None


def test_the_table_of_legal_states_is_complete() -> None:
    assert LEGAL.keys() == set(State)


class Calling:
    """One upstream connection on a recording transport; ``idle`` counts how often it was given back."""

    def __init__(self, sock: object = None, *, max_age_s: float = 3600, **limits: Any) -> None:
        self.clock = Clock()
        self.connections: Connections[Line] = Connections(interval_s=3600, clock=self.clock)
        self.idle = 0
        self.gone = 0
        self.transport = RecordingTransport(socket=sock)
        self.transport.settle = self.connections.writes.write_all
        self.connection = ClientConnection(
            ClientLimits(**limits), self.connections, on_idle=self._idle, on_closed=self._gone, max_age_s=max_age_s
        )
        self.connection.connection_made(self.transport)
        self.connections.add(self.connection)

    def _idle(self, connection: ClientConnection) -> None:
        self.idle += 1
        connection.kept = True

    def _gone(self, _connection: ClientConnection) -> None:
        self.gone += 1

    def ask(self, method: str = "GET", *, length: int | None = 0) -> Sink:
        sink = Sink()
        if length == 0:
            self.connection.ask(method, b"/a", b"host: b\r\n", sink)
        else:
            self.connection.start(method, b"/a", b"host: b\r\n", length=length, sink=sink)
            self.connection.flush()
        return sink

    def receive(self, data: bytes) -> None:
        self.connection.data_received(data)
        check_state(self.connection)

    def lose(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)
        check_state(self.connection)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.connections.sweep()
        check_state(self.connection)

    async def turns(self) -> None:
        """Let the loop go on until nothing of an answer waits for its turn."""
        while len(self.connections.turns):  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0)


REQUESTS = {
    "GET": ("GET", 0, b"", b"GET /a HTTP/1.1\r\nhost: b\r\n\r\n"),
    "POST without content": ("POST", 0, b"", b"POST /a HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n"),
    "length": ("POST", 3, b"abc", b"POST /a HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc"),
    "GET with length": ("GET", 3, b"abc", b"GET /a HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc"),
    "chunked": (
        "POST",
        None,
        b"abc",
        b"POST /a HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("method", "length", "body", "written"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_request_is_written_anew_in_one_piece(
    method: str, length: int | None, body: bytes, written: bytes
) -> None:
    calling = Calling()
    if length == 0:
        calling.connection.ask(method, b"/a", b"host: b\r\n", Sink())
    else:
        calling.connection.start(method, b"/a", b"host: b\r\n", length=length, sink=Sink())
        calling.connection.send_body(body)
        calling.connection.end_body()
        assert calling.transport.writes == []
        calling.connection.flush()
    assert calling.transport.writes == [written]


async def test_a_whole_request_with_a_body_leaves_in_one_write_and_its_connection_is_kept() -> None:
    calling, sink = Calling(), Sink()
    calling.connection.ask("POST", b"/a", b"host: b\r\n", sink, body=b"abc")
    calling.receive(OK)
    assert calling.transport.writes == [b"POST /a HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc"]
    assert calling.idle == 1


async def test_a_request_that_does_not_keep_its_length_is_a_bug() -> None:
    calling = Calling()
    calling.ask("POST", length=3)
    calling.connection.send_body(b"ab")
    with pytest.raises(RuntimeError, match="shorter"):
        calling.connection.end_body()
    with pytest.raises(RuntimeError, match="longer"):
        calling.connection.send_body(b"cd")


async def test_a_second_request_at_once_is_a_bug() -> None:
    calling = Calling()
    calling.ask()
    with pytest.raises(RuntimeError, match="in use"):
        calling.ask()


async def test_an_answer_is_told_in_order_and_the_connection_given_back() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(OK)
    assert sink.events == ["head", "data", "end"]
    assert (sink.status, sink.data, calling.idle) == (200, b"ok", 1)
    assert calling.connection.usable


@pytest.mark.parametrize("pieces", [[OK], [OK[:-2], OK[-2:]]], ids=["whole", "in pieces"])
async def test_the_connection_is_free_when_the_end_is_told(pieces: list[bytes]) -> None:
    calling = Calling()
    sink = calling.ask()
    usable: list[bool] = []
    sink.on_response_end = lambda: usable.append(calling.connection.usable)  # type: ignore[method-assign]
    for piece in pieces:
        calling.receive(piece)
    assert usable == [True]


NOT_KEPT = {
    "bytes beyond it": OK + b"H",
    "a second answer": OK + OK,
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 keep-alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("stream", NOT_KEPT.values(), ids=NOT_KEPT.keys())
async def test_after_a_doubtful_answer_the_connection_is_never_used_again(stream: bytes) -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(stream)
    assert (sink.data, sink.events.count("end"), calling.idle) == (b"ok", 1, 0)
    assert calling.transport.is_closing()
    assert not calling.connection.usable


async def test_after_an_answer_to_half_a_request_the_connection_is_never_used_again() -> None:
    calling = Calling()
    sink = calling.ask("POST", length=10)
    calling.receive(OK)
    assert (sink.events, calling.idle, calling.transport.aborted) == (["head", "data", "end"], 0, True)


async def test_bytes_nobody_asked_for_close_the_connection() -> None:
    fresh, kept = Calling(), Calling()
    kept.ask()
    kept.receive(OK)
    for calling in (fresh, kept):
        calling.receive(b"H")
        assert calling.transport.is_closing()
        assert not calling.connection.usable


async def test_an_old_connection_is_not_given_back() -> None:
    calling = Calling(max_age_s=100)
    calling.ask()
    calling.clock.now += 100
    calling.receive(OK)
    assert (calling.idle, calling.transport.is_closing()) == (0, True)


@pytest.mark.parametrize(("at_most_s", "later_s", "kept"), [(10, 9, True), (10, 10, False), (200, 100, False)])
async def test_a_connections_life_can_be_made_shorter_and_never_longer(
    at_most_s: float, later_s: float, kept: bool
) -> None:
    calling = Calling(max_age_s=100)
    calling.connection.live_at_most(at_most_s)
    calling.ask()
    calling.clock.now += later_s
    calling.receive(OK)
    assert (calling.idle == 1, calling.transport.is_closing()) == (kept, not kept)


CUT = {
    "before an answer": (b"", Reason.UPSTREAM_UNREACHABLE),
    "inside the head": (b"HTTP/1.1 200 OK\r\n", Reason.UPSTREAM_BAD_RESPONSE),
    "after an interim answer": (b"HTTP/1.1 100 C\r\n\r\n", Reason.UPSTREAM_BAD_RESPONSE),
    "inside a body with length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Reason.UPSTREAM_ABORTED),
    "between chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        Reason.UPSTREAM_ABORTED,
    ),
    "before the last empty line": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        Reason.UPSTREAM_ABORTED,
    ),
}


@pytest.mark.parametrize("how", ["end of file", "connection lost"])
@pytest.mark.parametrize(("stream", "reason"), CUT.values(), ids=CUT.keys())
async def test_an_answer_that_ends_early_is_an_error_and_never_an_end(stream: bytes, reason: Reason, how: str) -> None:
    calling = Calling()
    sink = calling.ask()
    if stream:
        calling.receive(stream)
    if how == "end of file":
        calling.connection.eof_received()
    calling.lose()
    assert sink.reasons == [reason]
    assert "end" not in sink.events
    assert not isinstance(sink.errors[0], StaleConnection)
    assert calling.gone == 1


async def test_an_answer_without_length_ends_with_the_end_of_file() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\n\r\nab")
    calling.connection.eof_received()
    calling.lose()
    assert (sink.data, sink.events[-1], calling.idle) == (b"ab", "end", 0)


@pytest.mark.parametrize("who", ["the upstream", "its deadline"])
async def test_a_kept_connection_that_was_closed_already_is_not_closed_again(who: str) -> None:
    calling = Calling(idle_keep_s=1.0)
    calling.ask()
    calling.receive(OK)
    if who == "the upstream":
        calling.connection.eof_received()
        calling.transport.close()  # as an event loop does then
    else:
        calling.after(2.0)
    assert calling.transport.closed
    calling.connection.close()  # as when the identity it was opened with is renewed


async def test_an_answer_without_length_that_is_reset_is_an_error() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\n\r\nab")
    calling.lose(ConnectionResetError())
    assert sink.reasons == [Reason.UPSTREAM_ABORTED]


async def test_a_kept_connection_that_gives_not_one_byte_is_stale() -> None:
    calling = Calling()
    calling.ask()
    calling.receive(OK)
    sink = calling.ask()
    calling.lose(ConnectionResetError())
    assert isinstance(sink.errors[0], StaleConnection)
    assert sink.reasons == [Reason.UPSTREAM_UNREACHABLE]


async def test_a_kept_connection_that_gives_one_byte_is_not_stale() -> None:
    calling = Calling()
    calling.ask()
    calling.receive(OK)
    sink = calling.ask()
    calling.receive(b"H")
    calling.lose(ConnectionResetError())
    assert sink.reasons == [Reason.UPSTREAM_BAD_RESPONSE]
    assert not isinstance(sink.errors[0], StaleConnection)


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n",
    ],
)
async def test_a_bad_answer_is_told_as_the_upstreams_and_closes_the_connection(stream: bytes) -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(stream)
    assert (sink.reasons, sink.events) == ([Reason.UPSTREAM_BAD_RESPONSE], ["error"])
    assert calling.transport.aborted
    calling.lose()
    assert len(sink.errors) == 1


async def test_a_broken_chunk_after_the_head_is_an_error_and_no_end() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    calling.receive(b"zz\r\n")
    assert (sink.data, sink.reasons) == (b"ab", [Reason.UPSTREAM_BAD_RESPONSE])


async def test_after_an_abort_nothing_more_is_told() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.connection.abort()
    calling.receive(OK)
    calling.lose()
    assert sink.events == []


async def test_an_answer_in_pieces_is_told_piece_by_piece() -> None:
    calling = Calling()
    sink = calling.ask()
    for piece in (OK[:-2], OK[-2:-1], OK[-1:]):
        calling.receive(piece)
    assert sink.events == ["head", "flush", "data", "flush", "data", "end", "flush"]
    assert (sink.data, calling.idle) == (b"ok", 1)


async def test_an_abort_inside_an_event_is_the_last_one() -> None:
    calling = Calling()
    sink = calling.ask()
    sink.on_response = lambda *_: calling.connection.abort()  # type: ignore[method-assign]
    calling.receive(OK[:-1])
    calling.receive(OK[-1:])
    assert (sink.events, calling.idle) == (["flush"], 0)


# --- deadlines


async def test_an_upstream_that_gives_no_head_in_time_is_given_up_however_it_drips() -> None:
    calling = Calling(first_byte_timeout_s=10)
    sink = calling.ask()
    calling.after(9)
    calling.receive(b"HTTP/1.1 1")
    calling.after(0.9)
    assert sink.reasons == []
    calling.after(0.2)
    assert sink.reasons == [Reason.UPSTREAM_TIMEOUT]
    assert calling.transport.aborted


async def test_the_wait_for_an_answer_begins_when_the_request_is_whole() -> None:
    calling = Calling(first_byte_timeout_s=10)
    sink = calling.ask("POST", length=3)
    calling.after(100)
    calling.connection.send_body(b"abc")
    calling.connection.end_body()
    calling.connection.flush()
    calling.after(9)
    assert sink.reasons == []
    calling.after(2)
    assert sink.reasons == [Reason.UPSTREAM_TIMEOUT]


async def test_an_answer_that_stops_coming_is_given_up() -> None:
    calling = Calling(idle_timeout_s=10)
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
    calling.after(9)
    calling.receive(b"b")
    calling.after(9)
    assert sink.reasons == []
    calling.after(2)
    assert sink.reasons == [Reason.UPSTREAM_TIMEOUT]


async def test_an_answer_that_is_not_wanted_now_has_no_deadline() -> None:
    calling = Calling(idle_timeout_s=10)
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
    calling.connection.pause_reading()
    calling.after(100)
    calling.connection.resume_reading()
    calling.after(9)
    assert sink.reasons == []


async def test_an_upstream_that_takes_nothing_of_a_request_is_given_up() -> None:
    calling = Calling(idle_timeout_s=10)
    sink = calling.ask("POST", length=3)
    calling.connection.pause_writing()
    calling.after(9)
    calling.connection.resume_writing()
    calling.connection.pause_writing()
    calling.after(9)
    assert sink.events == ["pause", "resume", "pause"]
    calling.after(2)
    assert sink.reasons == [Reason.UPSTREAM_TIMEOUT]


@pytest.mark.parametrize(("limits", "max_age_s"), [({"idle_keep_s": 10}, 100.0), ({"idle_keep_s": 100}, 10.0)])
async def test_a_kept_connection_is_closed_when_unused_or_old(limits: dict[str, float], max_age_s: float) -> None:
    calling = Calling(max_age_s=max_age_s, **limits)
    calling.ask()
    calling.receive(OK)
    calling.after(9)
    assert not calling.transport.is_closing()
    calling.after(2)
    assert calling.transport.is_closing()
    assert not calling.connection.usable


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from([b"", OK[:-2], OK, b"HTTP/1.1 200 OK\r\n"]))
def test_any_bytes_are_an_answer_or_an_error_and_never_an_exception(pieces: list[bytes], start: bytes) -> None:
    async def run() -> None:
        calling = Calling()
        sink = calling.ask()
        for piece in [start, *pieces]:
            if piece:
                calling.receive(piece)
        calling.connection.eof_received()
        calling.lose()
        assert sink.events.count("end") + sink.events.count("error") == 1

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel is not asked")
async def test_an_upstream_that_answers_early_and_leaves_is_heard_and_told_no_more() -> None:
    with connected() as (ours, theirs):
        calling = Calling(ours)
        sink = calling.ask("POST", length=9)
        calling.connection.send_body(b"abc")
        calling.connection.flush()
        theirs.close()
        written = calling.transport.written
        calling.connection.send_body(b"def")
        calling.connection.flush()
        calling.receive(OK)
        assert written.endswith(b"\r\n\r\nabc")
        assert calling.transport.written == written
        assert (sink.events, sink.data) == (["pause", "head", "data", "end"], b"ok")
        assert (calling.idle, calling.transport.aborted) == (0, True)


async def test_an_upstream_that_reset_unseen_is_left_without_an_error() -> None:
    calling = Calling()
    calling.ask()
    calling.transport.reset_unseen = True
    calling.connection.leave()
    assert not calling.connection.usable


# --- answers of many tiny chunks

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
A_TURN = MAX_LINES // 2  # chunks of one byte


def tiny(count: int) -> bytes:
    """So many chunks of one byte, each another than the one before."""
    return b"".join(b"1\r\n%c\r\n" % (97 + number % 26) for number in range(count))


def letters(count: int) -> bytes:
    return bytes(97 + number % 26 for number in range(count))


@pytest.mark.parametrize("head_apart", [False, True])
async def test_an_answer_of_tiny_chunks_is_read_some_at_a_time_as_the_loop_goes_on(head_apart: bool) -> None:
    calling = Calling()
    sink = calling.ask()
    if head_apart:
        calling.receive(CHUNKED)
        calling.receive(tiny(40000) + END)
    else:
        calling.receive(CHUNKED + tiny(40000) + END)
    turns = 1
    while "end" not in sink.events:
        assert len(sink.data) == A_TURN * turns
        assert sink.events[-2:] == ["data", "flush"]
        assert not calling.transport.reading
        await asyncio.sleep(0)
        turns += 1
    assert sink.data == letters(40000)
    assert calling.transport.reading
    assert calling.idle == 1
    assert calling.connection.usable


async def test_answers_on_connections_of_one_line_share_a_turn() -> None:
    calling = Calling()
    first, second = calling.ask(), Sink()
    other = ClientConnection(
        ClientLimits(), calling.connections, on_idle=calling._idle, on_closed=calling._gone, max_age_s=3600
    )
    other.connection_made(RecordingTransport())
    other.ask("GET", b"/", b"host: b\r\n", second)
    calling.receive(CHUNKED + tiny(20000))
    other.data_received(CHUNKED + tiny(20000))
    for turn in range(3, 20):
        await asyncio.sleep(0)
        assert len(first.data) + len(second.data) == A_TURN * turn
    await calling.turns()
    assert first.data == second.data == letters(20000)


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 1000, 10_000])
async def test_bytes_that_come_while_an_answer_waits_for_its_turn_stay_behind_it(cut: int) -> None:
    calling = Calling()
    sink = calling.ask()
    stream = tiny(3000) + END
    calling.receive(CHUNKED + stream[: len(stream) - cut])
    calling.receive(stream[len(stream) - cut :])
    await calling.turns()
    assert (sink.data, sink.events.count("end"), calling.idle) == (letters(3000), 1, 1)


async def test_an_answer_that_is_whole_before_its_turn_leaves_the_connection_as_good_as_ever() -> None:
    calling = Calling()
    first = calling.ask()
    calling.receive(CHUNKED + tiny(300))
    calling.receive(END)
    assert (first.data, first.events.count("end")) == (letters(300), 1)
    await calling.turns()
    assert calling.transport.reading
    second = calling.ask()
    calling.receive(OK)
    assert second.data == b"ok"


async def test_what_follows_an_answer_of_many_turns_is_surplus_all_the_same() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(3000) + END + b"x")
    await calling.turns()
    assert (sink.data, sink.events.count("end"), calling.idle) == (letters(3000), 1, 0)
    assert calling.transport.aborted


async def test_an_answer_that_is_held_back_between_two_turns_goes_on_when_it_is_wanted() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(2000) + END)
    calling.connection.pause_reading()
    await calling.turns()
    assert len(sink.data) == A_TURN
    assert not calling.transport.reading
    calling.connection.resume_reading()
    assert len(sink.data) == A_TURN  # nothing from inside the call
    await calling.turns()
    assert (sink.data, sink.events.count("end")) == (letters(2000), 1)
    assert calling.transport.reading


ENDS = {
    "end of input": lambda calling: calling.connection.eof_received(),
    "lost": lambda calling: calling.lose(),
    "reset": lambda calling: calling.lose(ConnectionResetError()),
    "end of input, then lost": lambda calling: (calling.connection.eof_received(), calling.lose()),
}


@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_whole_answer_stays_whole_though_its_connection_ends_while_it_waits(end: Any, held_back: bool) -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(2000) + END)
    if held_back:
        calling.connection.pause_reading()
    end(calling)
    check_state(calling.connection)
    assert (calling.connection.state, calling.connection.usable) == (State.BUFFERED, False)
    if held_back:
        await calling.turns()
        assert len(sink.data) == A_TURN
        calling.connection.resume_reading()
    await calling.turns()
    assert (sink.data, sink.events.count("end"), sink.errors) == (letters(2000), 1, [])
    assert calling.idle == 0
    calling.after(1000)
    assert (calling.connection.state, calling.connection.usable) == (State.CLOSED, False)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_an_answer_that_is_left_though_its_connection_has_ended_has_no_sink(end: Any) -> None:
    calling = Calling()
    calling.ask()
    calling.receive(CHUNKED + tiny(2000) + END)
    end(calling)
    calling.connection.leave()
    check_state(calling.connection)
    assert (calling.connection.state, calling.transport.writes[1:]) == (State.CLOSED, [])


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_an_answer_that_is_cut_is_told_as_cut_after_all_that_came_of_it(end: Any) -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(2000))
    end(calling)
    await calling.turns()
    check_state(calling.connection)
    assert sink.data == letters(2000)
    assert sink.reasons == [Reason.UPSTREAM_ABORTED]
    assert sink.events.count("error") == 1
    assert "end" not in sink.events


async def test_a_request_goes_no_further_on_a_connection_that_has_ended() -> None:
    calling = Calling()
    sink = calling.ask("POST", length=None)
    calling.receive(CHUNKED + tiny(2000) + END)
    before = calling.transport.written
    calling.lose()
    assert sink.events[-1] == "pause"  # whoever gives it stops, as nobody takes it
    calling.connection.send_body(b"abc")
    calling.connection.flush()
    await calling.turns()
    assert calling.transport.written == before
    assert sink.data == letters(2000)


async def test_an_answer_that_is_given_up_while_it_waits_is_told_no_more() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(2000) + END)
    calling.connection.abort()
    await calling.turns()
    assert len(sink.data) == A_TURN
    assert calling.idle == 0


async def test_a_broken_chunk_of_an_answer_is_found_in_its_turn() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + tiny(2000) + b"x\r\n")
    await calling.turns()
    assert sink.reasons == [Reason.UPSTREAM_BAD_RESPONSE]
    assert calling.transport.aborted


# --- answers whose content must not come, and comes

WITHOUT_CONTENT = {
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    "HEAD without length": ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
    "HEAD, 204": ("HEAD", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"),
    "304 without length": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "204 with length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"),
    "204 with chunks": ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
}
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(("method", "answer"), WITHOUT_CONTENT.values(), ids=WITHOUT_CONTENT.keys())
async def test_a_connection_ends_with_an_answer_that_leaves_its_content_behind(method: str, answer: bytes) -> None:
    calling = Calling()
    sink = calling.ask(method)
    calling.receive(answer)
    assert (sink.data, sink.events[-1], calling.idle) == (b"", "end", 0)
    assert (calling.transport.closed, calling.connection.usable) == (True, False)
    calling.receive(b"ok")  # what it sends all the same is nobody's
    assert (sink.data, sink.errors) == (b"", [])


async def test_the_same_answer_to_get_gives_its_connection_back() -> None:
    calling = Calling()
    calling.ask("GET")
    calling.receive(OK)
    assert (calling.idle, calling.connection.usable) == (1, True)


def looked_at_for_silence(calling: Calling, seconds: float) -> int:
    """Return how often the connection was returned, ``seconds`` after its answer."""
    calling.clock.now += seconds
    calling.connection._look_for_silence()
    return calling.idle


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        pytest.param("GET", NO_CONTENT, id="GET"),
        pytest.param("DELETE", NO_CONTENT, id="DELETE"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", id="length-0"),
    ],
)
async def test_a_connection_is_given_back_after_204_once_50_ms_were_silent(method: str, answer: bytes) -> None:
    calling = Calling()
    calling.ask(method)
    calling.receive(answer)
    assert looked_at_for_silence(calling, 0.049) == 0
    assert looked_at_for_silence(calling, 0.001) == 1
    assert looked_at_for_silence(calling, 1) == 1


async def test_a_connection_on_which_content_follows_a_204_is_never_given_back() -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(NO_CONTENT)
    calling.receive(OK)
    assert looked_at_for_silence(calling, 0.05) == 0
    assert (sink.data, calling.transport.aborted) == (b"", True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel is not asked")
async def test_what_has_arrived_after_a_204_and_was_not_read_is_no_silence() -> None:
    with connected() as (ours, theirs):
        calling = Calling(ours)
        calling.ask()
        calling.receive(NO_CONTENT)
        theirs.sendall(OK)
        while not select.select([ours], [], [], 1)[0]:
            pass
        assert looked_at_for_silence(calling, 0.05) == 0
        ours.recv(100)
        assert looked_at_for_silence(calling, 0.05) == 1


async def test_the_loop_itself_gives_a_connection_back_after_204() -> None:
    given_back = asyncio.Event()
    connections: Connections[Line] = Connections()
    connection = ClientConnection(
        ClientLimits(),
        connections,
        on_idle=lambda _: given_back.set(),
        on_closed=lambda _: None,
        max_age_s=3600,
    )
    connection.connection_made(RecordingTransport())
    connection.ask("GET", b"/a", b"host: b\r\n", Sink())
    connection.data_received(NO_CONTENT)
    assert not given_back.is_set()
    async with asyncio.timeout(10):
        await given_back.wait()
    assert connection.usable


async def test_a_connection_that_ends_while_it_is_distrusted_is_not_given_back() -> None:
    calling = Calling()
    calling.ask()
    calling.receive(NO_CONTENT)
    calling.lose()
    assert (looked_at_for_silence(calling, 0.05), calling.gone) == (0, 1)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("queued", [True, False])
async def test_reading_is_paused_for_either_reason_and_goes_on_without_both(held: bool, queued: bool) -> None:
    calling = Calling()
    sink = calling.ask()
    calling.receive(CHUNKED + (b"1\r\na\r\n" * (3 * MAX_LINES) if queued else b"1\r\na\r\n"))
    if held:
        calling.connection.pause_reading()
    assert calling.connection.reading_paused == held * Pause.BY_SINK + queued * Pause.FOR_TURN
    assert calling.transport.reading is not (held or queued)
    await calling.turns()
    assert calling.connection.reading_paused == held * Pause.BY_SINK
    calling.connection.resume_reading()
    await calling.turns()
    assert (calling.connection.reading_paused, calling.transport.reading) == (Pause.NOT, True)
    calling.receive(b"0\r\n\r\n")
    assert "end" in sink.events
    assert calling.idle == 1
    check_state(calling.connection)
