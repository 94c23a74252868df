"""HTTP/2 connections to upstreams, through a pool, against the library's server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from h2.errors import ErrorCodes

from delegation_core.errors import Reason, SidecarError
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_fields import encode_fields
from sidecar.wire.h2_client import MAX_EXCHANGES
from sidecar.wire.h2_frames import goaway
from sidecar.wire.limits import ClientLimits
from sidecar.wire.message import Response
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.upstream import Upstream
from sidecar.wire.upstream_errors import StaleConnection
from sidecar.wire.websocket import Handshake
from tests.wire.bench import Clock
from tests.wire.h2_bench import frame
from tests.wire.h2_upstream import Asked, H2Upstream

LINES = encode_fields([(b"host", b"crm.mesh"), (b"x-a", b"b")])


class Sink:
    """Keeps an answer."""

    def __init__(self) -> None:
        self.head: Response | None = None
        self.content = b""
        self.events: list[str] = []
        self.error: SidecarError | None = None
        self.over = asyncio.Event()
        self.news = asyncio.Event()

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.news.set()

    def on_whole_response(self, head: Response, data: bytes) -> None:
        self.head, self.content = head, data
        self._note("whole")
        self.over.set()

    def on_response(self, head: Response, data: bytes) -> None:
        self.head, self.content = head, data
        self._note("head")

    def on_response_data(self, data: bytes) -> None:
        self.content += data
        self._note("data")

    def on_response_end(self) -> None:
        self._note("end")
        self.over.set()

    def on_response_error(self, error: SidecarError) -> None:
        self.error = error
        self._note(f"error {error.reason}")
        self.over.set()

    def on_response_flush(self) -> None:
        pass

    def on_upstream_pause(self) -> None:
        self._note("pause")

    def on_upstream_resume(self) -> None:
        self._note("resume")

    async def end(self) -> Sink:
        async with asyncio.timeout(5):
            await self.over.wait()
        return self

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not wanted():  # noqa: ASYNC110 - the loop itself is what goes on
                await asyncio.sleep(0.005)


class Calls:
    """A pool, and its upstream."""

    def __init__(self, upstream: H2Upstream, **limits: float) -> None:
        self.upstream = upstream
        self.clock = Clock()
        self.pool = UpstreamPool(ClientLimits(**limits), clock=self.clock)  # type: ignore[arg-type]
        self.origin = Origin("127.0.0.1", upstream.port, key="h2", http2="prior")

    async def connection(self) -> Upstream:
        found = self.pool.take(self.origin)
        if found is not None:
            return found
        ready: asyncio.Future[Upstream] = asyncio.get_running_loop().create_future()
        self.pool.connect(self.origin, ready.set_result, ready.set_exception)
        async with asyncio.timeout(5):
            return await ready

    async def ask(self, method: str = "GET", body: bytes = b"") -> Sink:
        sink = Sink()
        (await self.connection()).ask(method, b"/a", LINES, sink, body=body)
        return sink

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.pool.connections.sweep()


@contextlib.asynccontextmanager
async def calling(act: Callable[[Asked], None] | None = None, **limits: float) -> AsyncIterator[Calls]:
    upstream = H2Upstream(act)
    await upstream.listen()
    calls = Calls(upstream, **limits)
    try:
        yield calls
    finally:
        await calls.pool.close()
        await upstream.close()


def echo(asked: Asked) -> None:
    asked.answer(asked.body or b"ok", (b"x-c", b"d"))


async def test_a_request_becomes_one_of_http2_and_its_answer_one_of_any_version() -> None:
    async with calling(echo) as calls:
        sink = await (await calls.ask("POST", b"hello")).end()
        (asked,) = calls.upstream.requests
    assert asked.fields == {
        b":method": b"POST", b":scheme": b"http", b":authority": b"crm.mesh", b":path": b"/a", b"x-a": b"b",
        b"content-length": b"5",
    }  # fmt: skip
    assert sink.head is not None
    assert (sink.head.status, sink.head.one(b"x-c"), sink.head.content_length, sink.content) == (
        200, b"d", 5, b"hello"
    )  # fmt: skip
    assert sink.events == ["whole"]


async def test_requests_at_a_time_share_a_connection_and_come_back_in_any_order() -> None:
    async with calling() as calls:
        sinks = [await calls.ask() for _ in range(20)]
        asked = [await calls.upstream.next() for _ in range(20)]
        for number, one in reversed(list(enumerate(asked))):
            one.answer(b"%d" % number)
        for sink in sinks:
            await sink.end()
        assert [sink.content for sink in sinks] == [b"%d" % number for number in range(20)]
        assert len(calls.upstream.links) == 1
        assert calls.pool.counts["opened"] == 1


async def test_past_the_upstreams_limit_another_connection_is_opened() -> None:
    async with calling() as calls:
        sinks = [await calls.ask() for _ in range(MAX_EXCHANGES + 1)]
        asked = [await calls.upstream.next() for _ in sinks]
        assert len(calls.upstream.links) == 2
        for one in asked:
            one.answer(b"ok")
        for sink in sinks:
            await sink.end()


async def test_a_body_that_comes_later_passes_as_it_comes_and_waits_for_windows() -> None:
    async with calling() as calls:
        calls.upstream.reads = False
        sink = Sink()
        connection = await calls.connection()
        connection.start("POST", b"/a", LINES, length=100_000, sink=sink)
        connection.send_body(b"x" * 100_000)
        connection.flush()
        connection.end_body()
        asked = await calls.upstream.next()
        await sink.until(lambda: len(asked.body) == 65_535)
        assert sink.events == ["pause"]
        asked.link.h2.increment_flow_control_window(50_000, asked.stream_id)
        asked.link.h2.increment_flow_control_window(50_000)
        asked.link.send()
        await sink.until(lambda: asked.ended)
        assert (len(asked.body), sink.events) == (100_000, ["pause", "resume"])
        asked.answer(b"ok")
        await sink.end()


async def test_an_answer_comes_as_it_comes_and_a_paused_one_fills_its_window() -> None:
    async with calling() as calls:
        sink = Sink()
        connection = await calls.connection()
        connection.ask("GET", b"/a", LINES, sink)
        asked = await calls.upstream.next()
        asked.head()
        await sink.until(lambda: sink.events == ["head"])
        asked.data(b"abc")
        await sink.until(lambda: sink.content == b"abc")
        connection.pause_reading()
        for _ in range(3):
            asked.data(b"x" * 16_384)
        await sink.until(lambda: asked.link.h2.local_flow_control_window(asked.stream_id) < 16_385)
        assert sink.content == b"abc"
        connection.resume_reading()
        asked.data(b"", ends=True)
        await sink.end()
        assert (len(sink.content), sink.events[-1]) == (3 + 3 * 16_384, "end")


async def test_callers_that_read_nothing_leave_the_answers_of_others_alone() -> None:
    async with calling() as calls:
        for _ in range(20):
            connection = await calls.connection()
            connection.ask("GET", b"/a", LINES, Sink())
            connection.pause_reading()
            asked = await calls.upstream.next()
            asked.head()
            while (left := asked.link.h2.local_flow_control_window(asked.stream_id)) > 0:
                asked.data(b"x" * min(left, 16_384))
            await asyncio.sleep(0.01)
        sink = await calls.ask()
        asked = await calls.upstream.next()
        asked.head()
        for _ in range(3):
            asked.data(b"x" * 16_384)
        asked.data(b"", ends=True)
        await sink.end()
        assert (len(sink.content), len(calls.upstream.links)) == (3 * 16_384, 1)


async def test_trailers_are_there_when_the_answer_ends() -> None:
    async with calling() as calls:
        sink = Sink()
        connection = await calls.connection()
        connection.ask("GET", b"/a", LINES, sink)
        asked = await calls.upstream.next()
        asked.link.h2.send_headers(asked.stream_id, [(b":status", b"200")])
        asked.link.h2.send_data(asked.stream_id, b"abc")
        asked.trailers((b"grpc-status", b"0"))
        await sink.end()
        assert (sink.events, sink.content, connection.trailers) == (
            ["head", "end"], b"abc", [(b"grpc-status", b"0")]
        )  # fmt: skip


async def test_interim_answers_are_skipped_up_to_a_limit() -> None:
    async with calling() as calls:
        sink = await calls.ask()
        asked = await calls.upstream.next()
        asked.head(status=103)
        asked.answer(b"ok")
        await sink.end()
        assert sink.content == b"ok"
        sink = await calls.ask()
        asked = await calls.upstream.next()
        for _ in range(9):
            asked.head(status=103)
        await sink.end()
        assert sink.error is not None
        assert sink.error.reason is Reason.UPSTREAM_BAD_RESPONSE


async def test_an_answer_before_the_end_of_its_request_ends_both() -> None:
    async with calling() as calls:
        sink = Sink()
        connection = await calls.connection()
        connection.start("POST", b"/a", LINES, length=None, sink=sink)
        connection.send_body(b"x")
        connection.flush()
        asked = await calls.upstream.next()
        asked.answer(b"no more")
        await sink.end()
        await sink.until(lambda: asked.reset is not None)
        assert (sink.content, asked.reset) == (b"no more", ErrorCodes.NO_ERROR)


async def test_a_request_that_is_given_up_resets_its_stream_alone() -> None:
    async with calling() as calls:
        first, second = Sink(), Sink()
        given_up = await calls.connection()
        given_up.ask("GET", b"/a", LINES, first)
        (await calls.connection()).ask("GET", b"/a", LINES, second)
        asked = [await calls.upstream.next() for _ in range(2)]
        given_up.abort()
        await second.until(lambda: asked[0].reset is not None)
        assert asked[0].reset == ErrorCodes.CANCEL
        asked[1].answer(b"ok")
        await second.end()
        assert (first.events, second.content) == ([], b"ok")


async def test_a_connection_whose_requests_are_given_up_too_often_takes_no_more() -> None:
    """The upstream might take it for rapid reset, and end it with the requests of other users."""
    async with calling() as calls:
        kept = await calls.ask()
        asked = await calls.upstream.next()
        for _ in range(110):
            connection = await calls.connection()
            connection.ask("GET", b"/a", LINES, Sink())
            await calls.upstream.next()
            connection.abort()
        assert len(calls.upstream.links) == 2
        asked.answer(b"ok")
        assert (await kept.end()).content == b"ok"


def bad_status(asked: Asked) -> None:
    asked.link.h2.send_headers(asked.stream_id, [(b":status", b"abc")])
    asked.link.send()


BAD_ANSWERS: dict[str, tuple[Callable[[Asked], None], Reason]] = {
    "a capital letter": (lambda asked: asked.head((b"X-A", b"b"), ends=True), Reason.UPSTREAM_BAD_RESPONSE),
    "a line break": (lambda asked: asked.head((b"x-a", b"b\r\nx: y"), ends=True), Reason.UPSTREAM_BAD_RESPONSE),
    "a colon in a name": (lambda asked: asked.head((b"x:a", b"b"), ends=True), Reason.UPSTREAM_BAD_RESPONSE),
    "connection": (lambda asked: asked.head((b"connection", b"close"), ends=True), Reason.UPSTREAM_BAD_RESPONSE),
    "101": (lambda asked: asked.head(status=101), Reason.UPSTREAM_BAD_RESPONSE),
    "a status of letters": (bad_status, Reason.UPSTREAM_BAD_RESPONSE),
    "more than its length": (
        lambda asked: asked.answer(b"abc", (b"content-length", b"2")),
        Reason.UPSTREAM_BAD_RESPONSE,
    ),
    "less than its length": (lambda asked: asked.answer(b"abc", (b"content-length", b"4")), Reason.UPSTREAM_ABORTED),
    "a reset": (lambda asked: asked.refuse(ErrorCodes.INTERNAL_ERROR), Reason.UPSTREAM_BAD_RESPONSE),
    "a stream refused unseen": (lambda asked: asked.refuse(ErrorCodes.REFUSED_STREAM), Reason.UPSTREAM_UNREACHABLE),
    "the end of the connection": (lambda asked: asked.link.writer.close(), Reason.UPSTREAM_UNREACHABLE),
    "frames out of place": (lambda asked: asked.link.writer.write(frame(9, 4, 1, b"")), Reason.UPSTREAM_BAD_RESPONSE),
    "content before a head": (
        lambda asked: asked.link.writer.write(frame(0, 0, 1, b"abc") + frame(1, 5, 1, b"\x88")),
        Reason.UPSTREAM_BAD_RESPONSE,
    ),
    "a promise": (lambda asked: asked.link.writer.write(frame(5, 4, 1, (2).to_bytes(4))), Reason.UPSTREAM_BAD_RESPONSE),
    "a flood": (lambda asked: asked.link.writer.write(frame(6, 0, 0, bytes(8)) * 1100), Reason.UPSTREAM_BAD_RESPONSE),
}  # fmt: skip


@pytest.mark.parametrize(("act", "reason"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_bad_answer_is_an_error_and_the_next_call_is_served(
    act: Callable[[Asked], None], reason: Reason
) -> None:
    async with calling(act) as calls:
        sink = await (await calls.ask()).end()
        assert sink.error is not None
        assert sink.error.reason is reason
        calls.upstream.act = echo
        await asyncio.sleep(0.02)
        assert (await (await calls.ask()).end()).content == b"ok"


async def test_a_stream_refused_inside_its_answer_is_no_reason_to_ask_again() -> None:
    def act(asked: Asked) -> None:
        asked.head()
        asked.refuse(ErrorCodes.REFUSED_STREAM)

    async with calling(act) as calls:
        sink = await (await calls.ask()).end()
        assert sink.error is not None
        assert (sink.error.reason, isinstance(sink.error, StaleConnection)) == (Reason.UPSTREAM_ABORTED, False)


async def test_content_after_head_is_an_error() -> None:
    async with calling(echo) as calls:
        assert (await (await calls.ask("HEAD")).end()).error is not None
        calls.upstream.act = lambda asked: asked.head((b"content-length", b"5"), ends=True)
        sink = await (await calls.ask("HEAD")).end()
        assert sink.head is not None
        assert (sink.head.content_length, sink.content) == (5, b"")


async def test_an_upstream_that_leaves_finishes_what_it_has_begun_and_gets_no_more() -> None:
    async with calling() as calls:
        first, second = await calls.ask(), await calls.ask()
        asked = [await calls.upstream.next() for _ in range(2)]
        asked[0].link.writer.write(goaway(asked[0].stream_id, 0))
        await second.end()
        assert isinstance(second.error, StaleConnection)
        asked[0].answer(b"ok")
        assert (await first.end()).content == b"ok"
        third = await calls.ask()
        (await calls.upstream.next()).answer(b"third")
        assert (await third.end()).content == b"third"
        assert len(calls.upstream.links) == 2


async def test_an_upgrade_has_no_place_in_http2() -> None:
    async with calling(echo) as calls:
        sink = Sink()
        (await calls.connection()).ask("GET", b"/a", LINES, sink, Handshake(b"key", frozenset()))
        await sink.end()
        assert sink.error is not None
        assert sink.error.reason is Reason.UPGRADE_REFUSED


async def test_silence_ends_a_call_and_leaves_others() -> None:
    async with calling(first_byte_timeout_s=10.0) as calls:
        silent = await calls.ask()
        await calls.upstream.next()
        calls.after(9)
        lively = await calls.ask()
        asked = await calls.upstream.next()
        calls.after(2)
        await silent.end()
        assert silent.error is not None
        assert silent.error.reason is Reason.UPSTREAM_TIMEOUT
        asked.answer(b"ok")
        assert (await lively.end()).content == b"ok"


async def test_an_idle_connection_closes_and_an_old_one_takes_no_more() -> None:
    async with calling(echo, idle_keep_s=10.0) as calls:
        await (await calls.ask()).end()
        calls.after(11)
        await asyncio.wait_for(calls.pool.connections.wait_for_empty(), 5)
        assert calls.pool.take(calls.origin) is None
        await (await calls.ask()).end()
        assert len(calls.upstream.links) == 2


async def test_a_retired_pool_lets_requests_finish() -> None:
    async with calling() as calls:
        sink = await calls.ask()
        asked = await calls.upstream.next()
        calls.pool.retire()
        other = await calls.ask()
        assert (await calls.upstream.next()).link is not asked.link
        asked.answer(b"ok")
        assert (await sink.end()).content == b"ok"
        await other.until(lambda: len(calls.pool.connections) == 1)


async def test_a_request_of_grpc_says_that_it_reads_trailers() -> None:
    async with calling(echo) as calls:
        sink = Sink()
        lines = encode_fields([(b"host", b"crm"), (b"content-type", b"application/grpc+proto")])
        (await calls.connection()).ask("POST", b"/a", lines, sink, body=b"x")
        await sink.end()
        assert calls.upstream.requests[0].fields[b"te"] == b"trailers"


@pytest.mark.parametrize("part", ["on_response", "on_response_data", "on_response_end", "on_whole_response"])
async def test_a_bug_in_a_sink_ends_no_other_request(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with calling() as calls:
        first, second = await calls.ask(), await calls.ask()
        monkeypatch.setattr(first, part, fail)
        asked = [await calls.upstream.next() for _ in range(2)]
        if part == "on_whole_response":
            asked[0].answer(b"ok")
        else:
            asked[0].head()
            asked[0].data(b"x")
            await first.until(lambda: first.events != [])
            if first.error is None:
                asked[0].data(b"y", ends=True)
        await first.end()
        asked[1].answer(b"ok")
        await second.end()
        assert len(calls.upstream.links) == 1
    assert first.error is not None
    assert first.error.reason is Reason.INTERNAL
    assert second.content == b"ok"


async def test_a_bug_at_the_end_of_an_answer_leaves_the_request_alone_that_came_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calling() as calls:
        first, second = Sink(), Sink()
        exchange = await calls.connection()
        lines = encode_fields([(b"host", b"crm")])

        def fail(*_: object) -> None:
            exchange.ask("GET", b"/b", lines, second)
            raise ZeroDivisionError

        monkeypatch.setattr(first, "on_whole_response", fail)
        exchange.ask("GET", b"/a", lines, first)
        (await calls.upstream.next()).answer(b"ok")
        (await calls.upstream.next()).answer(b"also")
        await second.end()
    assert second.content == b"also"
    assert first.error is not None
    assert first.error.reason is Reason.INTERNAL
