"""HTTP/2 server connections: the limits of what one may do, deadlines, and the end."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from delegation_core.errors import Reason, Unavailable
from sidecar.wire.h2_frames import MAX_CONTROL, MAX_HEADER_FRAMES, MAX_RESETS
from sidecar.wire.h2_requests import MAX_STREAMS
from sidecar.wire.h2_session import CONNECTION_WINDOW
from sidecar.wire.stream import Stream
from tests.wire.bench import answer_ok
from tests.wire.h2_bench import ASKS, H2Served, frame
from tests.wire.test_h2_requests import ALL, Source, head_of, with_body


async def test_a_stream_too_many_is_refused_and_may_be_tried_again() -> None:
    served = H2Served()
    served.peer.h2.remote_settings.acknowledge()
    ids = [served.begin(ASKS, ends=True) for _ in range(MAX_STREAMS)]
    more = served.begin(ASKS, ends=True)
    served.connection.data_received(served.peer.h2.data_to_send())  # before it has our settings
    await served.settle()
    await served.exchange()
    assert [error.reason for error in served.refusals] == [Reason.OVERLOADED]
    assert served.peer.answer(more).reset == ErrorCodes.REFUSED_STREAM
    assert len(served.handler.requests) == len(ids)


async def ended_by_flood(served: H2Served) -> None:
    assert [int(one.error_code) for one in served.peer.goaways] == [ErrorCodes.ENHANCE_YOUR_CALM]
    assert served.peer.goaways[0].additional_data == b"frame_flood"
    assert {error.reason for error in served.refusals} <= {Reason.FRAME_FLOOD}
    served.after(10)
    assert served.transport.is_closing()


async def test_rapid_reset_ends_the_connection() -> None:
    served = H2Served()
    for _ in range(MAX_RESETS + 1):
        stream_id = served.begin(ASKS, ends=True)
        served.peer.h2.reset_stream(stream_id)
    await served.exchange()
    await ended_by_flood(served)
    assert len(served.handler.requests) <= MAX_RESETS + 1
    assert all(stream.gone for stream in served.handler.requests)


async def test_streams_that_are_given_up_now_and_then_are_no_flood() -> None:
    served = H2Served()
    for _ in range(3):
        for _ in range(MAX_RESETS // 2):
            served.peer.h2.reset_stream(served.begin(ASKS, ends=True))
        await served.exchange()
        served.clock.now += 4
    assert served.peer.goaways == []


FLOODS = {
    "SETTINGS": frame(4, 0, 0, b""),
    "PING": frame(6, 0, 0, bytes(8)),
    "PRIORITY": frame(2, 0, 1, bytes(4) + b"\1"),
    "WINDOW_UPDATE": frame(8, 0, 0, (1).to_bytes(4)),
    "an unknown type": frame(0xEE, 0, 0, b"abc"),
}


@pytest.mark.parametrize("one", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_frames_without_content_ends_the_connection(one: bytes) -> None:
    served = H2Served()
    await served.raw(one * (MAX_CONTROL + 20))
    await ended_by_flood(served)


@pytest.mark.parametrize("one", FLOODS.values(), ids=FLOODS.keys())
async def test_a_few_of_them_do_not(one: bytes) -> None:
    served = H2Served(answer_ok)
    for _ in range(3):
        await served.raw(one * (MAX_CONTROL // 3))
        served.clock.now += 10
    assert (await served.ask()).status == 200


async def test_a_flood_of_empty_content_ends_the_connection() -> None:
    served = H2Served()
    stream_id = served.begin()
    await served.raw(frame(0, 0, stream_id, b"") * (MAX_CONTROL + 20))
    assert served.handler.requests[0].gone
    await ended_by_flood(served)


async def test_a_flood_of_padding_without_content_ends_the_connection() -> None:
    served = H2Served()
    stream_id = served.begin()
    await served.raw(frame(0, 8, stream_id, b"\2\0\0") * (MAX_CONTROL + 20))
    await ended_by_flood(served)


async def test_a_window_that_opens_byte_by_byte_ends_the_connection() -> None:
    served = H2Served(opens=False)
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    served.handler.requests[0].answer(200, [], b"x" * 70_000)
    await served.exchange()
    one_byte = frame(8, 0, 0, (1).to_bytes(4)) + frame(8, 0, stream_id, (1).to_bytes(4))
    served.connection.data_received(one_byte * MAX_CONTROL)
    await served.settle()
    assert (11).to_bytes(4) + b"frame_flood" in served.transport.written[-30:]
    assert served.handler.requests[0].gone


async def test_a_reader_that_opens_its_window_by_what_it_has_read_is_no_flood() -> None:
    served = H2Served()
    stream_id = served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    stream.send_head(head_of(), ALL)
    for _ in range(3 * MAX_CONTROL):
        stream.send_data(b"tiny")
        stream.flush()
        await served.settle()
        served.connection.data_received(frame(8, 0, stream_id, (4).to_bytes(4)) + frame(8, 0, 0, (4).to_bytes(4)))
    assert not stream.gone


async def test_settings_that_nobody_knows_are_not_remembered() -> None:
    served = H2Served(answer_ok)
    for begin in range(0x100, 0x4000, 0x400):
        entries = b"".join([code.to_bytes(2) + bytes(4) for code in range(begin, begin + 0x400)])
        await served.raw(frame(4, 0, 0, entries + b"\0\4" + (70_000).to_bytes(4)))
    settings = served.connection._session.remote_settings
    assert len(settings) < 10
    assert settings.initial_window_size == 70_000
    assert (await served.ask()).status == 200


async def test_a_flood_of_continuations_ends_the_connection() -> None:
    served = H2Served()
    await served.raw(frame(1, 1, 1, b"") + frame(9, 0, 1, b"") * MAX_HEADER_FRAMES)
    await ended_by_flood(served)


async def test_a_header_block_that_never_ends_ends_the_connection() -> None:
    served = H2Served(max_head_bytes=32768)
    await served.raw(frame(1, 1, 1, bytes(16384)) + frame(9, 0, 1, bytes(16384)) * 4)
    await ended_by_flood(served)


async def test_a_head_that_unpacks_to_much_more_ends_the_connection() -> None:
    served = H2Served()
    # One entry of 4 KB in the table of the compression, then named by one byte again and again.
    bomb = b"\x40\x01x\x7f\x81\x1e" + b"y" * 4000 + b"\xbe" * 10_000
    await served.raw(frame(1, 5, 1, bomb))
    assert [int(one.error_code) for one in served.peer.goaways] == [ErrorCodes.ENHANCE_YOUR_CALM]
    assert served.handler.requests == []
    assert [error.reason for error in served.refusals] == [Reason.BAD_REQUEST]


async def test_a_frame_longer_than_our_settings_ends_the_connection_before_it_has_come() -> None:
    served = H2Served()
    await served.raw((16385).to_bytes(3) + b"\0\0" + (1).to_bytes(4))
    assert [int(one.error_code) for one in served.peer.goaways] == [ErrorCodes.FRAME_SIZE_ERROR]


async def test_a_table_of_any_size_is_offered_in_vain() -> None:
    served = H2Served(answer_ok)
    served.peer.h2.update_settings({1: 2**31 - 1})
    await served.ask()
    assert served.connection._session.encoder.header_table_size == 4096


STREAM_IDS = {
    "an even number": frame(1, 5, 2, b"\x82\x87\x84\x41\x01a"),
    "a lower number than before": frame(1, 5, 5, b"\x82\x87\x84\x41\x01a") + frame(1, 5, 3, b"\x82\x87\x84\x41\x01a"),
    "the connection itself": frame(1, 5, 0, b"\x82\x87\x84\x41\x01a"),
    "content of a stream that never was": frame(0, 0, 7, b"abc"),
    "a window of a stream that never was": frame(8, 0, 7, (1).to_bytes(4)),
    "a reset of a stream that never was": frame(3, 0, 7, (8).to_bytes(4)),
    "a promise": frame(5, 4, 1, (2).to_bytes(4)),
    "a GOAWAY of a stream": frame(7, 0, 1, bytes(8)),
    "a GOAWAY that is cut": frame(7, 0, 0, bytes(4)),
    "a window of nothing": frame(8, 0, 0, bytes(4)),
    "a window of too much": frame(8, 0, 0, (2**31 - 1).to_bytes(4)),
    "settings of a stream": frame(4, 0, 1, b""),
    "a window beyond all": frame(4, 0, 0, b"\0\4" + (2**31).to_bytes(4)),
    "a frame inside a head": frame(1, 1, 1, b"") + frame(6, 0, 0, bytes(8)),
    "a CONTINUATION alone": frame(9, 4, 1, b""),
}


@pytest.mark.parametrize("data", STREAM_IDS.values(), ids=STREAM_IDS.keys())
async def test_a_frame_out_of_place_ends_the_connection_with_one_record(data: bytes) -> None:
    served = H2Served()
    await served.raw(data)
    assert len(served.peer.goaways) == 1
    assert served.peer.goaways[0].error_code != ErrorCodes.NO_ERROR
    assert len(served.refusals) + len(served.handler.requests) >= 1
    assert all(error.reason is Reason.BAD_REQUEST for error in served.refusals)
    assert all(stream.gone for stream in served.handler.requests)


async def test_a_continuation_of_no_head_ends_the_connection_also_on_a_stream_that_was_reset() -> None:
    served = H2Served()
    block = frame(1, 5, 1, b"\x82\x87\x84\x41\x01a") + frame(3, 0, 1, (8).to_bytes(4))
    await served.raw(block + frame(1, 0x25, 3, bytes(5) + b"\x82\x87\x84\x41\x01a"))  # with a priority
    assert served.peer.goaways == []
    await served.raw(frame(9, 4, 1, b"\x40\x01x\x01y"))  # the library would reset stream 1 and add nothing to its table
    assert [goaway.error_code for goaway in served.peer.goaways] == [ErrorCodes.PROTOCOL_ERROR]


async def test_a_first_frame_other_than_settings_ends_the_connection() -> None:
    served = H2Served()
    served.connection.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(6, 0, 0, bytes(8)))
    await served.settle()
    assert [error.reason for error in served.refusals] == [Reason.BAD_REQUEST]
    assert served.handler.requests == []


@pytest.mark.parametrize("piece", [1, 7, 100])
async def test_a_connection_cut_anywhere_is_the_same_connection(piece: int) -> None:
    served = H2Served(with_body)
    stream_id = served.begin()
    served.peer.h2.send_data(stream_id, b"x" * 500, end_stream=True)
    sent = served.peer.h2.data_to_send()
    for at in range(0, len(sent), piece):
        served.connection.data_received(sent[at : at + piece])
    await served.exchange()
    assert served.peer.answer(stream_id).fields[b"x-size"] == b"500"


# --- deadlines


async def test_a_window_that_never_opens_ends_its_stream() -> None:
    served = H2Served(opens=False)
    ids = [served.begin(ASKS, ends=True) for _ in range(2)]
    await served.exchange()
    first, second = served.handler.requests
    source = Source()
    first.sender = source
    first.send_head(head_of(), ALL)
    first.send_data(b"x" * 70_000)
    first.flush()
    await served.exchange()
    for _ in range(40):
        served.after(1)
    await served.exchange()
    assert source.events == ["pause", f"gone {Reason.PEER_SLOW}"]
    assert served.peer.answer(ids[0]).reset == ErrorCodes.CANCEL
    assert not second.gone


async def test_a_body_that_comes_too_slowly_is_refused_and_one_that_comes_is_not() -> None:
    served = H2Served(with_body)
    slow, quick = served.begin(), served.begin()
    await served.exchange()
    for _ in range(40):
        served.peer.h2.send_data(quick, b"x" * 1000)
        await served.exchange()
        served.after(1)
    await served.exchange()
    assert served.peer.answer(slow).status == 400
    assert served.peer.answer(quick).status == 0


async def test_a_head_that_never_ends_is_refused_at_its_deadline() -> None:
    served = H2Served()
    await served.raw(frame(1, 1, 1, b"\x82"))
    served.after(9)
    assert served.refusals == []
    served.after(2)
    assert [error.reason for error in served.refusals] == [Reason.TIMEOUT]


async def test_an_idle_connection_is_told_and_closed() -> None:
    served = H2Served(answer_ok)
    await served.ask()
    served.after(74)
    assert not served.transport.is_closing()
    served.after(2)
    await served.exchange()
    assert [int(one.error_code) for one in served.peer.goaways] == [ErrorCodes.NO_ERROR]
    assert served.transport.is_closing()


async def test_frames_of_no_request_keep_no_connection_in_use() -> None:
    served = H2Served(answer_ok, keep_alive_timeout_s=75.0)
    await served.ask()
    idle_since = served.connection.waits_since
    for _ in range(3):
        served.after(20.0)
        assert served.connection.waits_since == idle_since
        served.connection.data_received(frame(6, 0, 0, bytes(8)))
        await served.exchange()
    assert not served.peer.goaways
    served.after(20.0)
    await served.exchange()
    assert (len(served.peer.goaways), served.transport.closed) == (1, True)


async def test_an_old_connection_takes_no_more_streams() -> None:
    served = H2Served(max_age_s=100.0)
    served.begin(ASKS, ends=True)
    await served.exchange()
    served.after(101)
    served.after(2)
    served.handler.requests[0].answer(200, [], b"ok")
    assert b"ok" in served.transport.written
    assert served.transport.is_closing()


# --- the end


async def test_a_drain_tells_the_peer_and_lets_streams_finish() -> None:
    served = H2Served()
    ids = [served.begin(ASKS, ends=True)]
    await served.exchange()
    written = len(served.transport.written)
    served.connections.drain(1.0, 5.0)
    served.after(0.25)
    assert frame(7, 0, 0, (2**31 - 1).to_bytes(4) + bytes(4)) in served.transport.written[written:]
    ids.append(served.begin(ASKS, ends=True))  # on its way
    served.connection.data_received(served.peer.h2.data_to_send())
    assert len(served.handler.requests) == 2
    served.after(1.5)
    served.connection.data_received(frame(1, 5, 5, b"\x82\x87\x84\x41\x01a"))
    assert [error.reason for error in served.refusals] == [Reason.DRAINING]
    for stream in served.handler.requests:
        assert not served.transport.is_closing()
        stream.answer(200, [], b"ok")
    await served.settle()
    assert served.transport.is_closing()
    assert served.transport.written.count(b"ok") == 2


async def test_an_idle_connection_of_a_drain_closes_after_the_grace() -> None:
    served = H2Served(answer_ok)
    await served.ask()
    served.connections.drain(1.0, 5.0)
    served.after(0.5)
    assert not served.transport.is_closing()
    served.after(1.5)
    assert served.transport.is_closing()


async def test_a_stop_ends_every_stream_for_its_reason() -> None:
    served = H2Served()
    reasons: list[Reason] = []

    class Owner:
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def gone(self) -> None:
            raise AssertionError

        def stop(self, error: Unavailable) -> None:
            reasons.append(error.reason)
            self.stream.answer(503, [], b"bye")

    for _ in range(2):
        served.begin(ASKS, ends=True)
    await served.exchange()
    for stream in served.handler.requests:
        stream.owner = Owner(stream)  # type: ignore[assignment]
    served.connection.stop(Unavailable(Reason.DRAINING))
    assert reasons == [Reason.DRAINING] * 2
    assert served.transport.is_closing()
    assert served.transport.written.count(b"bye") == 2


async def test_the_end_of_a_connection_ends_every_stream() -> None:
    served = H2Served()
    for _ in range(3):
        served.begin(ASKS, ends=True)
    await served.exchange()
    served.connection.connection_lost(None)
    assert all(stream.gone for stream in served.handler.requests)
    assert len(served.connections) == 0


async def test_a_peer_that_leaves_gets_the_rest_of_its_answers() -> None:
    served = H2Served()
    served.begin(ASKS, ends=True)
    await served.exchange()
    served.connection.data_received(frame(7, 0, 0, bytes(8)))
    assert not served.transport.is_closing()
    served.handler.requests[0].answer(200, [], b"ok")
    await served.settle()
    assert b"ok" in served.transport.written
    assert served.transport.is_closing()


async def test_a_peer_that_reads_nothing_pauses_every_source() -> None:
    served = H2Served()
    served.begin(ASKS, ends=True)
    await served.exchange()
    (stream,) = served.handler.requests
    source = Source()
    stream.sender = source
    stream.send_head(head_of(), ALL)
    served.connection.pause_writing()
    stream.send_data(b"abc")
    stream.flush()
    assert "pause" in source.events
    served.connection.resume_writing()
    await served.settle()
    assert source.events[-1] == "resume"
    assert b"abc" in served.transport.written
    served.connection.pause_writing()
    for _ in range(40):
        served.after(1)
    assert source.events[-1] == f"gone {Reason.PEER_SLOW}"
    assert served.transport.aborted


async def test_the_window_of_a_connection_bounds_what_waits() -> None:
    served = H2Served()
    for _ in range(20):
        served.begin()
    await served.exchange()
    sent = 0
    for stream_id in list(served.peer.h2.streams):
        while (left := served.peer.h2.local_flow_control_window(stream_id)) > 0:
            served.peer.h2.send_data(stream_id, b"x" * min(left, 16384))
            sent += min(left, 16384)
    await served.exchange()
    assert sent == CONNECTION_WINDOW


async def test_heads_are_not_remembered_beyond_a_sweep() -> None:
    served = H2Served(answer_ok)
    for _ in range(3):
        assert (await served.ask([*ASKS, (b"authorization", b"Bearer secret")])).status == 200
    decoder = served.connection._session.decoder
    assert b"secret" in repr(decoder._known).encode()
    served.after(0.1)
    assert not decoder._known
