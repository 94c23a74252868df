"""HTTP/2 server connections whose peers bend the rules: each limit holds for other frames of the same effect too."""

from __future__ import annotations

import tracemalloc

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from delegation_core.errors import Reason
from sidecar.wire.h2_frames import MAX_RESETS
from sidecar.wire.h2_session import CONNECTION_WINDOW
from sidecar.wire.stream import Stream
from tests.wire.bench import Body
from tests.wire.h2_bench import ASKS, POSTS, H2Served, frame
from tests.wire.test_h2_requests import with_body

OVERFLOW = (2**31 - 1).to_bytes(4)


def ended_by_flood(served: H2Served) -> bool:
    return [int(one.error_code) for one in served.peer.goaways] == [ErrorCodes.ENHANCE_YOUR_CALM]


def resets_by(served: H2Served, way: str, stream_id: int) -> bytes:
    """Return frames for which the server has to reset this stream, which its peer did not."""
    if way == "a window that overflows":
        return frame(8, 0, stream_id, OVERFLOW)
    if way == "content after the end":
        return frame(0, 0, stream_id, b"x")
    return frame(1, 5, stream_id, served.peer.h2.encoder.encode([(b"x-a", b"b")]))


@pytest.mark.parametrize("way", ["a window that overflows", "content after the end", "a head after the end"])
async def test_streams_that_the_peer_makes_us_reset_count_as_those_that_it_resets(way: str) -> None:
    served = H2Served()
    for _ in range(MAX_RESETS + 1):
        stream_id = served.begin(ASKS, ends=True)
        served.connection.data_received(served.peer.h2.data_to_send())
        served.connection.data_received(resets_by(served, way, stream_id))
        await served.settle()
    await served.exchange()
    assert ended_by_flood(served)


async def test_heads_on_a_stream_that_was_reset_are_a_flood() -> None:
    served = H2Served()
    stream_id = served.begin(ASKS, ends=True)
    served.peer.h2.reset_stream(stream_id)
    await served.exchange()
    block = served.peer.h2.encoder.encode([(b"x-a", b"b")])
    served.connection.data_received(frame(1, 5, stream_id, block) * 2000)
    await served.exchange()
    assert ended_by_flood(served)


@pytest.mark.parametrize("trailers", [False, True])
async def test_requests_that_show_malformed_count_as_resets(trailers: bool) -> None:
    served = H2Served(with_body)
    for _ in range(MAX_RESETS + 1):
        stream_id = served.begin([*POSTS, (b"content-length", b"1")])
        if trailers:
            served.peer.h2.send_data(stream_id, b"x")
            served.peer.h2.send_headers(stream_id, [(b":path", b"/")], end_stream=True)
        else:
            served.peer.h2.send_data(stream_id, b"xy", end_stream=True)
        served.connection.data_received(served.peer.h2.data_to_send())
        await served.settle()
    await served.exchange()
    assert ended_by_flood(served)


async def test_a_head_that_decompresses_past_twice_the_limit_ends_the_connection() -> None:
    served = H2Served(max_head_bytes=4096)
    served.begin([*ASKS, *[(b"x-a", b"y" * 1000)] * 5], ends=True)
    await served.exchange()
    assert ([error.reason for error in served.refusals], served.peer.goaways) == ([Reason.HEAD_TOO_LARGE], [])
    served.begin([*ASKS, *[(b"x-a", b"y" * 1000)] * 9], ends=True)
    await served.exchange()
    assert (len(served.peer.goaways), len(served.handler.requests)) == (1, 0)


@pytest.mark.parametrize("size", [0, 3])
async def test_a_head_in_many_frames_has_the_time_of_one(size: int) -> None:
    served = H2Served(head_timeout_s=10.0)
    await served.exchange()
    served.connection.data_received(frame(1, 0, 1, bytes(size)))
    served.after(9.0)
    served.connection.data_received(frame(9, 0, 1, bytes(size)))
    assert served.refusals == []
    served.after(2.0)
    assert [error.reason for error in served.refusals] == [Reason.TIMEOUT]


async def test_content_of_a_stream_that_is_over_has_a_deadline_too() -> None:
    served = H2Served(head_timeout_s=10.0)
    stream_id = served.begin()
    served.begin(ASKS, ends=True)
    await served.exchange()
    served.handler.requests[0].answer(200, [], b"")
    await served.exchange()
    served.after(5.0)
    served.connection.data_received(frame(0, 0, stream_id, bytes(1000))[:20])
    for _ in range(4):
        served.after(15.0)
        served.connection.data_received(b"x")
    await served.exchange()
    assert served.peer.goaways == []
    served.after(5.0)
    await served.exchange()
    assert [one.additional_data for one in served.peer.goaways] == [b"timeout"]


async def test_a_frame_that_begins_after_a_silence_has_its_own_time() -> None:
    served = H2Served(head_timeout_s=10.0)
    served.begin(ASKS, ends=True)
    await served.exchange()
    served.clock.now += 60
    served.begin(ASKS, ends=True)
    sent = served.peer.h2.data_to_send()
    served.connection.data_received(sent[:5])
    served.after(9)
    assert not served.handler.requests[0].gone
    served.connection.data_received(sent[5:7])
    served.after(2)
    assert served.handler.requests[0].gone


async def test_a_peer_that_reads_nothing_gets_no_more_answers_until_it_does() -> None:
    """Answers without content wait for no window: only unread requests keep them from piling up."""
    served = H2Served(answer_head)
    await served.ask()
    served.connection.pause_writing()
    written = len(served.transport.written)
    ids = [served.begin(ASKS, ends=True) for _ in range(50)]
    served.connection.data_received(served.peer.h2.data_to_send())
    for _ in range(200):
        served.peer.h2.ping(b"12345678")
    served.connection.data_received(served.peer.h2.data_to_send())
    await served.settle()
    assert (len(served.handler.requests), len(served.transport.written)) == (1, written)
    reading = [served.transport.reading]
    served.connection.data_received(frame(0, 0, ids[0], b"x" * 16_000) * 5)
    reading.append(served.transport.reading)
    assert reading == [True, False]
    served.connection.resume_writing()
    await served.settle()
    assert (len(served.handler.requests), served.transport.reading) == (51, True)


def answer_head(stream: Stream) -> None:
    stream.answer(200, [], b"")


@pytest.mark.parametrize("paused", [False, True])
async def test_a_body_whose_request_was_answered_unread_takes_nothing_of_the_window_of_others(paused: bool) -> None:
    served = H2Served()
    for _ in range(20):
        stream_id = served.begin()
        await served.exchange()
        (stream,) = served.handler.requests
        if paused:
            stream.read_body(Body())
            stream.pause_body()
        for _ in range(3):
            served.peer.h2.send_data(stream_id, bytes(16_000))
        await served.exchange()
        stream.answer(503, [], b"")
        served.peer.h2.end_stream(stream_id)
        await served.exchange()
        served.handler.requests.clear()
    assert served.peer.h2.outbound_flow_control_window > CONNECTION_WINDOW // 2


@pytest.mark.parametrize(("most", "resets"), [(60_000, True), (70_000, False)])
async def test_a_body_that_nobody_reads_is_limited_while_its_answer_waits_for_a_window(
    most: int, *, resets: bool
) -> None:
    served = H2Served(max_body_bytes=most)
    served.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    stream_id = served.begin()
    await served.exchange()
    (stream,) = served.handler.requests
    stream.answer(401, [], b"x" * 1000)
    for _ in range(8):
        if served.peer.answer(stream_id).reset is not None:
            break
        served.peer.h2.send_data(stream_id, bytes(16_000))
        await served.exchange()
    assert (served.peer.answer(stream_id).reset is not None) == resets


async def test_padding_alone_takes_nothing_of_the_window_of_others() -> None:
    served = H2Served(with_body)
    await served.exchange()
    before = served.connection._session.inbound_flow_control_window
    for _ in range(3):
        stream_id = served.begin()
        await served.exchange()
        served.connection.data_received(frame(0, 0x9, stream_id, b"\xff" + bytes(255)))
        await served.settle()
    managed = served.connection._session._inbound_flow_control_window_manager
    assert served.connection._session.inbound_flow_control_window + managed._bytes_processed == before


async def test_content_in_tiny_frames_costs_little_more_than_its_bytes() -> None:
    served = H2Served()
    stream_id = served.begin()
    await served.exchange()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            served.connection.data_received(frame(0, 0, stream_id, b"ab") * 40)
            await served.settle()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 10 * 4000
