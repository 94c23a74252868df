"""Requests of HTTP/2 server connections: each stream is a request of its own."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from delegation_core.errors import Reason
from sidecar.wire.h2_session import STREAM_WINDOW
from sidecar.wire.message import Edits, Response
from sidecar.wire.stream import Stream
from tests.wire.bench import Body, answer_ok
from tests.wire.h2_bench import ASKS, POSTS, Fields, H2Served
from tests.wire.written import answer_with

ALL = Edits(lambda _name: True)


def with_body(stream: Stream) -> None:
    """Answer once the whole body is there."""
    sink = Body()
    end = sink.on_body_end
    error = sink.on_body_error

    def ended() -> None:
        end()
        stream.answer(200, [(b"x-size", b"%d" % len(sink.data))], b"ok")

    def failed(fault: object) -> None:
        error(fault)  # type: ignore[arg-type]
        stream.answer(400, [], b"bad")

    sink.on_body_end, sink.on_body_error = ended, failed  # type: ignore[method-assign, assignment]
    stream.read_body(sink)


async def test_requests_of_a_connection_are_each_a_request_of_its_own() -> None:
    served = H2Served(answer_ok)
    answers = [await served.ask() for _ in range(3)]
    assert [(one.status, one.content, one.ended, one.reset) for one in answers] == [(200, b"ok", True, None)] * 3
    heads = [stream.head for stream in served.handler.requests]
    assert [(head.method, head.target, head.authority) for head in heads if head] == [("GET", b"/a", "agent")] * 3
    assert heads[0] is not None
    assert heads[0].one(b"host") == b"agent"
    assert all(stream.bytes_in > 0 and stream.bytes_out > 2 for stream in served.handler.requests)


async def test_answers_come_in_any_order_and_each_on_its_stream() -> None:
    served = H2Served()
    ids = [served.begin(ASKS, ends=True) for _ in range(10)]
    await served.exchange()
    assert len(served.handler.requests) == 10
    for number, stream in reversed(list(enumerate(served.handler.requests))):
        stream.answer(200, [], b"%d" % number)
    await served.exchange()
    assert [served.peer.answer(one).content for one in ids] == [b"%d" % number for number in range(10)]


async def test_a_body_reaches_its_sink_and_its_end_too() -> None:
    served = H2Served(with_body)
    answer = await served.ask([*POSTS, (b"content-length", b"5")], b"hello")
    assert (answer.status, answer.fields[b"x-size"]) == (200, b"5")


async def test_a_whole_body_is_taken_at_once() -> None:
    served = H2Served()
    stream_id = served.begin()
    await served.exchange()
    (stream,) = served.handler.requests
    assert stream.take_whole_body() is None
    served.peer.h2.send_data(stream_id, b"hello", end_stream=True)
    await served.exchange()
    assert not stream.body_complete
    assert stream.take_whole_body() == b"hello"
    assert stream.body_complete


async def test_a_peer_that_waits_for_100_continue_gets_it_once_its_body_is_wanted() -> None:
    served = H2Served()
    stream_id = served.begin([*POSTS, (b"expect", b"100-continue")])
    await served.exchange()
    assert served.peer.answer(stream_id).interim == []
    with_body(served.handler.requests[0])
    await served.exchange()
    assert served.peer.answer(stream_id).interim == [b"100"]
    served.peer.h2.send_data(stream_id, b"x", end_stream=True)
    await served.exchange()
    assert served.peer.answer(stream_id).status == 200


async def test_a_body_that_nobody_reads_fills_its_window_and_no_more() -> None:
    served = H2Served()
    stream_id = served.begin()
    await served.exchange()
    served.peer.h2.send_data(stream_id, b"x" * 16384)
    for _ in range(3):
        await served.exchange()
        left = served.peer.h2.local_flow_control_window(stream_id)
        served.peer.h2.send_data(stream_id, b"x" * min(left, 16384))
    await served.exchange()
    assert served.peer.h2.local_flow_control_window(stream_id) == 0
    sink = Body()
    served.handler.requests[0].read_body(sink)
    await served.exchange()
    assert len(sink.data) == STREAM_WINDOW
    assert served.peer.h2.local_flow_control_window(stream_id) == STREAM_WINDOW


async def test_a_paused_body_stops_its_own_stream_and_no_other() -> None:
    served = H2Served()
    slow, quick = served.begin(), served.begin()
    await served.exchange()
    sink = Body()
    served.handler.requests[0].read_body(sink)
    served.handler.requests[0].pause_body()
    with_body(served.handler.requests[1])
    served.peer.h2.send_data(slow, b"abc", end_stream=True)
    served.peer.h2.send_data(quick, b"abc", end_stream=True)
    await served.exchange()
    assert (sink.data, served.peer.answer(quick).status) == (b"", 200)
    served.handler.requests[0].resume_body()
    assert (sink.data, sink.events[-3:]) == (b"abc", ["data", "end", "flush"])


class Source:
    """The party that passes an answer on."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_caller_gone(self, error: object = None) -> None:
        self.events.append(f"gone {getattr(error, 'reason', None)}")

    def on_caller_pause(self) -> None:
        self.events.append("pause")

    def on_caller_resume(self) -> None:
        self.events.append("resume")


def head_of(*fields: tuple[bytes, bytes], length: int | None = None) -> Response:
    found = answer_with(fields)
    return Response(found.layout, found.values, 200, length)


async def test_an_answer_waits_for_windows_and_its_source_is_paused_meanwhile() -> None:
    served = H2Served(opens=False)
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    source = Source()
    stream.sender = source
    stream.send_head(head_of((b"x-a", b"b")), ALL)
    stream.send_data(b"x" * 100_000)
    stream.flush()
    await served.exchange()
    assert len(served.peer.answer(stream_id).content) == 65_535
    assert (source.events, stream.writing_paused) == (["pause"], True)
    served.peer.h2.increment_flow_control_window(50_000, stream_id)
    served.peer.h2.increment_flow_control_window(50_000)
    await served.exchange()
    assert (source.events, stream.writing_paused) == (["pause", "resume"], False)
    stream.send_end()
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (len(answer.content), answer.ended, answer.fields[b"x-a"]) == (100_000, True, b"b")


async def test_a_source_that_ends_as_it_resumes_loses_nothing() -> None:
    served = H2Served(opens=False)
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests

    class Last(Source):
        def on_caller_resume(self) -> None:
            stream.send_data(b"y" * 100_000)
            stream.send_end([(b"grpc-status", b"0")])

    stream.sender = Last()
    stream.send_head(head_of(), ALL)
    stream.send_data(b"x" * 70_000)
    stream.flush()
    for _ in range(4):
        await served.exchange()
        assert not served.peer.answer(stream_id).trailers
        served.peer.h2.increment_flow_control_window(30_000, stream_id)
        served.peer.h2.increment_flow_control_window(30_000)
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (len(answer.content), answer.trailers) == (170_000, {b"grpc-status": b"0"})


async def test_streams_share_the_window_of_their_connection() -> None:
    served = H2Served(opens=False)
    ids = [served.begin(ASKS, ends=True) for _ in range(2)]
    await served.exchange()
    for stream in served.handler.requests:
        stream.answer(200, [], b"x" * 60_000)
    for _ in range(20):
        await served.exchange()
        served.peer.h2.increment_flow_control_window(10_000)
    await served.exchange()
    assert [len(served.peer.answer(one).content) for one in ids] == [60_000] * 2


async def test_trailers_follow_the_content() -> None:
    served = H2Served()
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    stream.send_head(head_of(), ALL)
    stream.send_data(b"abc")
    stream.send_end([(b"grpc-status", b"0")])
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (answer.content, answer.trailers, answer.ended) == (b"abc", {b"grpc-status": b"0"}, True)


async def test_an_answer_shorter_than_its_length_is_cut_and_others_go_on() -> None:
    served = H2Served()
    ids = [served.begin(ASKS, ends=True) for _ in range(2)]
    await served.exchange()
    first, second = served.handler.requests
    first.send_head(head_of(length=10), ALL)
    first.send_data(b"abc")
    first.send_end()
    second.answer(200, [], b"ok")
    await served.exchange()
    assert served.peer.answer(ids[0]).reset == ErrorCodes.INTERNAL_ERROR
    assert not served.peer.answer(ids[0]).ended
    assert served.peer.answer(ids[1]).ended


async def test_an_answer_has_no_more_content_than_its_length() -> None:
    served = H2Served()
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    stream.send_head(head_of(length=2), ALL)
    stream.send_data(b"abc")
    stream.send_end()
    await served.exchange()
    assert (served.peer.answer(stream_id).content, served.peer.answer(stream_id).ended) == (b"ab", True)


async def test_an_answer_to_head_states_a_length_and_has_no_content() -> None:
    served = H2Served()
    stream_id = served.begin([(b":method", b"HEAD"), *ASKS[1:]], ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    stream.send_head(head_of(length=2), ALL)
    stream.send_data(b"ab")
    stream.send_end()
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (answer.fields[b"content-length"], answer.content, answer.ended) == (b"2", b"", True)


async def test_an_early_answer_ends_the_body_that_nobody_reads() -> None:
    served = H2Served(answer_ok)
    stream_id = served.begin()
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (answer.status, answer.ended, answer.reset) == (200, True, None)
    served.after(3.5)
    await served.exchange()
    assert answer.reset == ErrorCodes.NO_ERROR


async def test_a_body_that_goes_on_long_after_its_answer_is_reset() -> None:
    served = H2Served(answer_ok)
    stream_id = served.begin()
    await served.exchange()
    for _ in range(8):
        left = min(served.peer.h2.local_flow_control_window(stream_id), 16_384)
        if served.peer.answer(stream_id).reset is None:
            served.peer.h2.send_data(stream_id, b"x" * left)
        await served.exchange()
    assert served.peer.answer(stream_id).reset == ErrorCodes.NO_ERROR
    assert (await served.ask()).status == 200


@pytest.mark.parametrize(
    ("sent", "trailers", "reset"),
    [
        (b"abc", None, None),
        (b"abcd", None, ErrorCodes.PROTOCOL_ERROR),
        (b"ab", None, ErrorCodes.PROTOCOL_ERROR),
        (b"abc", [(b"x-a", b"b")], None),
        (b"abc", [(b":path", b"/")], ErrorCodes.PROTOCOL_ERROR),
        (b"ab", [(b"x-a", b"b")], ErrorCodes.PROTOCOL_ERROR),
    ],
)
async def test_a_request_that_shows_malformed_after_its_answer_is_reset(
    sent: bytes, trailers: Fields | None, reset: int | None
) -> None:
    served = H2Served(answer_ok)
    stream_id = served.begin([*POSTS, (b"content-length", b"3")])
    await served.exchange()
    served.peer.h2.send_data(stream_id, sent, end_stream=trailers is None)
    if trailers is not None:
        served.peer.h2.send_headers(stream_id, trailers, end_stream=True)
    written = len(served.transport.written)
    served.connection.data_received(served.peer.h2.data_to_send())
    await served.settle()
    more = served.transport.written[written:]
    told = (4).to_bytes(3) + b"\3\0" + stream_id.to_bytes(4)
    assert (told in more) is (reset is not None)
    if reset is not None:
        assert told + int(reset).to_bytes(4) in more


MALFORMED: dict[str, tuple[Fields, Reason]] = {
    "a capital letter": ([*ASKS, (b"X-a", b"b")], Reason.BAD_REQUEST),
    "a line break in a value": ([*ASKS, (b"x-a", b"b\r\nhost: other")], Reason.BAD_REQUEST),
    "a line feed in the path": ([*ASKS[:2], (b":path", b"/a\nb"), ASKS[3]], Reason.BAD_REQUEST),
    "a space in the path": ([*ASKS[:2], (b":path", b"/a HTTP/1.1"), ASKS[3]], Reason.BAD_REQUEST),
    "a byte past ASCII in the path": ([*ASKS[:2], (b":path", b"/\xc3\xa9"), ASKS[3]], Reason.BAD_REQUEST),
    "a NUL in a value": ([*ASKS, (b"x-a", b"b\0")], Reason.BAD_REQUEST),
    "a line break in a name": ([*ASKS, (b"x-a\r\nb", b"c")], Reason.BAD_REQUEST),
    "a space in a name": ([*ASKS, (b"x a", b"b")], Reason.BAD_REQUEST),
    "a colon in a name": ([*ASKS, (b"x:a", b"b")], Reason.BAD_REQUEST),
    "an empty name": ([*ASKS, (b"", b"b")], Reason.BAD_REQUEST),
    "white space around a value": ([*ASKS, (b"x-a", b" b")], Reason.BAD_REQUEST),
    "transfer-encoding": ([*ASKS, (b"transfer-encoding", b"chunked")], Reason.AMBIGUOUS_FRAMING),
    "connection": ([*ASKS, (b"connection", b"close")], Reason.BAD_REQUEST),
    "keep-alive": ([*ASKS, (b"keep-alive", b"1")], Reason.BAD_REQUEST),
    "proxy-connection": ([*ASKS, (b"proxy-connection", b"close")], Reason.BAD_REQUEST),
    "upgrade": ([*ASKS, (b"upgrade", b"websocket")], Reason.BAD_REQUEST),
    "http2-settings": ([*ASKS, (b"http2-settings", b"")], Reason.BAD_REQUEST),
    "te": ([*ASKS, (b"te", b"gzip")], Reason.BAD_REQUEST),
    "another host": ([*ASKS, (b"host", b"other")], Reason.BAD_REQUEST),
    "two hosts": ([*ASKS, (b"host", b"agent"), (b"host", b"agent")], Reason.BAD_REQUEST),
    "no authority at all": (ASKS[:3], Reason.BAD_REQUEST),
    "user information": ([*ASKS[:3], (b":authority", b"a@agent")], Reason.BAD_REQUEST),
    "two methods": ([ASKS[0], *ASKS], Reason.BAD_REQUEST),
    "an unknown pseudo field": ([*ASKS, (b":x", b"y")], Reason.BAD_REQUEST),
    "extended CONNECT": ([(b":method", b"CONNECT"), *ASKS[1:], (b":protocol", b"websocket")], Reason.BAD_REQUEST),
    "a pseudo field behind another": ([(b"x-a", b"b"), *ASKS], Reason.BAD_REQUEST),
    "another scheme": ([ASKS[0], (b":scheme", b"ftp"), *ASKS[2:]], Reason.BAD_REQUEST),
    "no method": (ASKS[1:], Reason.BAD_REQUEST),
    "two lengths": ([*POSTS, (b"content-length", b"3"), (b"content-length", b"3")], Reason.AMBIGUOUS_FRAMING),
    "a length with a sign": ([*POSTS, (b"content-length", b"+3")], Reason.AMBIGUOUS_FRAMING),
}


@pytest.mark.parametrize(("fields", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_head_ends_its_stream_by_its_reason_and_no_other_stream(
    fields: Fields, reason: Reason
) -> None:
    served = H2Served()
    lawful = served.begin(ASKS, ends=True)
    refused = served.begin(fields, ends=False)
    await served.exchange()
    assert [error.reason for error in served.refusals] == [reason]
    answer = served.peer.answer(refused)
    assert (answer.status, answer.content, answer.ended) == (400, str(reason).encode(), False)
    assert answer.reset == ErrorCodes.PROTOCOL_ERROR
    served.handler.requests[0].answer(200, [], b"ok")
    await served.exchange()
    assert served.peer.answer(lawful).content == b"ok"
    assert len(served.handler.requests) == 1


async def test_extended_connect_is_not_offered_and_refused_by_its_name() -> None:
    served = H2Served()
    served.begin([(b":method", b"CONNECT"), *ASKS[1:], (b":protocol", b"websocket")], ends=False)
    await served.exchange()
    assert served.peer.h2.remote_settings.enable_connect_protocol == 0
    (error,) = served.refusals
    assert (error.reason, "extended CONNECT" in error.detail) == (Reason.BAD_REQUEST, True)


UNSERVED: dict[str, tuple[Fields, Reason]] = {
    "CONNECT": ([(b":method", b"CONNECT"), ASKS[3]], Reason.METHOD_REFUSED),
    "TRACE": ([(b":method", b"TRACE"), *ASKS[1:]], Reason.METHOD_REFUSED),
    "the asterisk form": ([*ASKS[:2], (b":path", b"*"), ASKS[3]], Reason.PATH_REFUSED),
    "a long target": ([*ASKS[:2], (b":path", b"/" + b"a" * 9000), ASKS[3]], Reason.URI_TOO_LONG),
    "many fields": ([*ASKS, *[(b"x-%d" % number, b"y") for number in range(101)]], Reason.HEAD_TOO_LARGE),
    "a large head": ([*ASKS, *[(b"x-%d" % number, b"y" * 7000) for number in range(5)]], Reason.HEAD_TOO_LARGE),
    "an expectation": ([*POSTS, (b"expect", b"x")], Reason.EXPECTATION_REFUSED),
    "a large body": ([*POSTS, (b"content-length", b"9" * 12)], Reason.TOO_LARGE),
}


@pytest.mark.parametrize(("fields", "reason"), UNSERVED.values(), ids=UNSERVED.keys())
async def test_a_valid_head_that_is_not_served_is_answered(fields: Fields, reason: Reason) -> None:
    served = H2Served()
    stream_id = served.begin(fields, ends=True)
    await served.exchange()
    assert [error.reason for error in served.refusals] == [reason]
    answer = served.peer.answer(stream_id)
    assert (answer.status, answer.ended, answer.reset) == (served.refusals[0].answer.status, True, None)
    assert (await served.ask(ASKS)).reset is None


async def test_one_authority_may_be_stated_twice_if_it_is_the_same() -> None:
    served = H2Served(answer_ok)
    assert (await served.ask([*ASKS, (b"host", b"AGENT")])).status == 200
    assert (await served.ask([*ASKS[:3], (b"host", b"agent")])).status == 200


async def test_split_cookies_are_joined() -> None:
    served = H2Served(answer_ok)
    await served.ask([*ASKS, (b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2")])
    head = served.handler.requests[0].head
    assert head is not None
    assert head.all(b"cookie") == (b"a=1; c=2",)
    await served.ask([*ASKS, (b"cookie", b"a=1"), (b"cookie", b"")])
    head = served.handler.requests[1].head
    assert head is not None
    assert head.all(b"cookie") == (b"a=1",)
    head = served.handler.requests[0].head
    assert head is not None
    assert head.one(b"x-a") == b"b"


@pytest.mark.parametrize(("stated", "sent"), [(b"5", b"abc"), (b"2", b"abc"), (b"1", b"")])
async def test_a_body_that_is_not_as_long_as_stated_fails_its_own_stream(stated: bytes, sent: bytes) -> None:
    served = H2Served(with_body)
    stream_id = served.begin([*POSTS, (b"content-length", stated)])
    await served.exchange()
    served.peer.h2.send_data(stream_id, sent, end_stream=True)
    await served.exchange()
    answer = served.peer.answer(stream_id)
    assert (answer.status, answer.ended, answer.reset) == (400, False, ErrorCodes.PROTOCOL_ERROR)
    assert (await served.ask(POSTS, b"abc")).status == 200


async def test_a_head_that_ends_its_request_and_states_a_length_is_malformed() -> None:
    served = H2Served()
    await served.ask([*POSTS, (b"content-length", b"3")])
    assert [error.reason for error in served.refusals] == [Reason.AMBIGUOUS_FRAMING]


async def test_a_body_past_the_limit_is_refused() -> None:
    served = H2Served(with_body, max_body_bytes=10)
    stream_id = served.begin()
    served.peer.h2.send_data(stream_id, b"x" * 11)
    await served.exchange()
    assert served.peer.answer(stream_id).status == 400
    served.after(3.5)
    await served.exchange()
    assert served.peer.answer(stream_id).reset == ErrorCodes.NO_ERROR


async def test_trailers_of_a_request_are_checked_and_dropped() -> None:
    served = H2Served(with_body)
    good, bad = served.begin(), served.begin()
    for stream_id, trailers in ((good, [(b"x-a", b"b")]), (bad, [(b":path", b"/b")])):
        served.peer.h2.send_data(stream_id, b"abc")
        served.peer.h2.send_headers(stream_id, trailers, end_stream=True)
    await served.exchange()
    assert (served.peer.answer(good).status, served.peer.answer(bad).status) == (200, 400)


async def test_a_peer_that_gives_a_stream_up_ends_that_stream_alone() -> None:
    served = H2Served()
    ids = [served.begin(ASKS, ends=True) for _ in range(2)]
    await served.exchange()
    source = Source()
    served.handler.requests[0].sender = source
    served.peer.h2.reset_stream(ids[0], ErrorCodes.CANCEL)
    await served.exchange()
    assert (source.events, served.handler.requests[0].gone, served.handler.requests[1].gone) == (
        ["gone None"], True, False
    )  # fmt: skip
    served.handler.requests[0].answer(200, [], b"late")
    served.handler.requests[1].answer(200, [], b"ok")
    await served.exchange()
    assert served.peer.answer(ids[1]).content == b"ok"


@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_bug_in_serving_a_request_ends_no_other_of_its_connection(where: str) -> None:
    class Faulty(Body):
        def on_body(self, data: bytes) -> None:
            raise ZeroDivisionError

    def act(stream: Stream) -> None:
        if len(served.handler.requests) != 2:
            return
        if where == "head":
            raise ZeroDivisionError
        stream.read_body(Faulty())

    served = H2Served(act)
    ids = [served.begin() for _ in range(3)]
    for stream_id in ids:
        served.peer.h2.send_data(stream_id, b"abc", end_stream=True)
    await served.exchange()
    assert [served.peer.answer(one).reset is None for one in ids] == [True, False, True]
    for stream in served.handler.requests[::2]:
        stream.answer(200, [], b"")
    await served.exchange()
    assert [served.peer.answer(one).status for one in ids] == [200, 0, 200]


@pytest.mark.parametrize(("read", "waits_s"), [(0, 5), (1, 30)])
async def test_an_answer_of_which_nothing_was_read_waits_for_less_time(read: int, waits_s: int) -> None:
    """Twin: one whose window has opened once has ``write_timeout_s``."""
    served = H2Served(opens=False)
    served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: read})
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    source = stream.sender = Source()
    stream.send_head(head_of(), ALL)
    stream.send_data(b"x" * 100)
    stream.flush()
    await served.exchange()
    served.after(waits_s)
    assert source.events == ["pause"]
    served.after(0.5)
    await served.exchange()
    assert source.events == ["pause", f"gone {Reason.PEER_SLOW}"]
    assert served.peer.answer(stream_id).reset == ErrorCodes.CANCEL
