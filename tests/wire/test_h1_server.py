from __future__ import annotations

import asyncio
import socket
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.wire.framing import MAX_LINES
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from sidecar.wire.stream import Stream
from tests.wire.bench import Body, Handler, RecordingTransport, Served, answer_ok
from tests.wire.test_teardown import connected, fill
from tests.wire.written import passed

GET = b"GET /a HTTP/1.1\r\nHost: agent\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: agent\r\n" + fields + b"\r\n" + body


async def test_requests_on_a_kept_connection_are_each_answered_with_one_write() -> None:
    served = Served(answer_ok)
    for _ in range(3):
        served.receive(GET)
    assert served.transport.writes == [OK] * 3
    assert [exchange.head is not None and exchange.head.target for exchange in served.handler.requests] == [b"/a"] * 3
    assert not served.transport.is_closing()


async def test_the_exchange_counts_bytes() -> None:
    served = Served(answer_ok)
    served.receive(GET)
    served.receive(post(b"Content-Length: 3\r\n")[:10])
    served.receive(post(b"Content-Length: 3\r\n", b"abc")[10:])
    first, second = served.handler.requests
    assert (first.bytes_in, first.bytes_out, first.status) == (len(GET), len(OK), 200)
    assert (second.bytes_in, second.bytes_out) == (len(post(b"Content-Length: 3\r\n", b"abc")), len(OK))


@pytest.mark.parametrize("pieces", [[GET[:10], b"\0"], [GET[:10], GET[10:20], b"X\0"]], ids=["two", "three"])
async def test_a_refused_head_counts_all_of_its_bytes(pieces: list[bytes]) -> None:
    served = Served(answer_ok)
    for piece in pieces:
        served.receive(piece)
    ((exchange, error),) = served.handler.refused
    assert error.reason is Reason.BAD_REQUEST
    assert exchange.bytes_in == len(b"".join(pieces))


@pytest.mark.parametrize("cut", range(1, len(post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"))))
async def test_a_request_cut_anywhere_is_the_same_request(cut: int) -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    stream = post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n")
    served.receive(stream[:cut])
    served.receive(stream[cut:])
    assert body.data == b"abc"
    assert body.events.count("end") == 1
    served.only.answer(200, [], b"ok")
    served.receive(GET)
    assert len(served.handler.requests) == 2


async def test_pipelined_requests_are_served_in_order_one_at_a_time() -> None:
    served = Served()
    served.receive(GET + post(b"Content-Length: 3\r\n", b"abc") + GET)
    assert len(served.handler.requests) == 1
    served.handler.requests[0].answer(200, [], b"ok")
    await served.turns()
    assert len(served.handler.requests) == 2
    body = Body()
    served.handler.requests[1].read_body(body)
    served.handler.requests[1].answer(200, [], b"ok")
    assert body.data == b"abc"
    await served.turns()
    served.handler.requests[2].answer(200, [], b"ok")
    assert served.transport.written == OK * 3
    assert served.transport.reading


async def test_a_broken_pipelined_request_does_not_harm_the_one_before_it() -> None:
    served = Served()
    served.receive(GET + b"GET  /b HTTP/1.1\r\n\r\n")
    assert served.handler.refused == []
    served.only.answer(200, [], b"ok")
    await served.turns()
    assert served.transport.written.startswith(OK + b"HTTP/1.1 400 Bad Request\r\n")


async def test_of_many_requests_at_once_the_first_is_served_and_the_others_one_by_one_as_the_loop_goes_on() -> None:
    served = Served(answer_ok)
    served.receive(GET * 1000)
    for number in range(1, 10):
        assert served.transport.written == OK * number
        await asyncio.sleep(0)
    await served.turns()
    assert served.transport.written == OK * 1000
    assert served.transport.reading


CHUNKED = post(b"Transfer-Encoding: chunked\r\n")
A_TURN = MAX_LINES // 2  # chunks of one byte


def tiny(count: int) -> bytes:
    """So many chunks of one byte, each another than the one before."""
    return b"".join(b"1\r\n%c\r\n" % (97 + number % 26) for number in range(count))


def letters(count: int) -> bytes:
    return bytes(97 + number % 26 for number in range(count))


async def test_a_body_of_tiny_chunks_is_read_some_at_a_time_as_the_loop_goes_on() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED + tiny(40000) + b"0\r\n\r\n")
    turns = 1
    while "end" not in body.events:
        assert len(body.data) == A_TURN * turns
        assert body.events == ["data", "flush"] * turns
        assert not served.transport.reading
        await asyncio.sleep(0)
        turns += 1
    assert body.data == letters(40000)
    assert served.transport.reading
    served.only.answer(200, [], b"ok")
    served.receive(GET)
    assert len(served.handler.requests) == 2


async def test_bodies_of_one_group_share_a_turn() -> None:
    first, second = Body(), Body()
    served = Served(lambda exchange: exchange.read_body(first))
    other = ServerConnection(Handler(lambda exchange: exchange.read_body(second)), ServerLimits(), served.connections)
    other.connection_made(RecordingTransport())
    served.receive(CHUNKED + tiny(20000))
    other.data_received(CHUNKED + tiny(20000))
    for turn in range(3, 20):
        await asyncio.sleep(0)
        assert len(first.data) + len(second.data) == A_TURN * turn
    await served.turns()
    assert first.data == second.data == letters(20000)


async def test_another_request_is_served_between_two_turns_of_a_body() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    other = ServerConnection(Handler(answer_ok), ServerLimits(), served.connections)
    transport = RecordingTransport()
    transport.settle = served.connections.writes.write_all
    other.connection_made(transport)
    served.receive(CHUNKED + tiny(40000))
    asyncio.get_running_loop().call_soon(other.data_received, GET)
    await asyncio.sleep(0)
    assert transport.written == OK
    assert len(body.data) <= 2 * A_TURN


@pytest.mark.parametrize("cut", [0, 1, 4, 1000, 100_000])
async def test_bytes_that_come_while_a_body_waits_for_its_turn_stay_behind_it(cut: int) -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    stream = tiny(3000) + b"0\r\n\r\n" + GET
    served.receive(CHUNKED + stream[: len(stream) - cut])
    served.receive(stream[len(stream) - cut :])  # no event loop reads on when it was told to pause
    assert len(body.data) <= A_TURN
    await served.turns()
    assert (body.data, body.events.count("end")) == (letters(3000), 1)
    served.only.answer(200, [], b"ok")
    await served.turns()
    assert len(served.handler.requests) == 2


async def test_a_body_that_is_held_back_between_two_turns_goes_on_when_it_is_wanted() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED + tiny(2000) + b"0\r\n\r\n")
    served.only.pause_body()
    await served.turns()
    assert len(body.data) == A_TURN
    assert not served.transport.reading
    served.only.resume_body()
    await served.turns()
    assert (body.data, body.events[-2:]) == (letters(2000), ["end", "flush"])
    assert served.transport.reading


async def test_a_body_goes_on_while_its_peer_takes_no_answer() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED + tiny(2000) + b"0\r\n\r\n")
    served.connection.pause_writing()
    await served.turns()
    assert body.data == letters(2000)


async def test_the_rest_of_a_body_is_thrown_away_after_an_early_answer() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED + tiny(2000))
    served.only.answer(413, [], b"no")
    assert b"connection: close" in served.transport.written
    assert served.transport.reading  # and thrown away
    await served.turns()
    served.receive(tiny(2000) + b"0\r\n\r\n" + GET)
    assert len(body.data) == A_TURN
    assert len(served.handler.requests) == 1
    assert served.transport.reading


async def test_who_takes_a_body_may_answer_in_the_middle_of_a_turn() -> None:
    class Enough(Body):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            served.only.answer(413, [], b"no")

    body = Enough()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED)
    served.receive(tiny(2000))
    await served.turns()
    assert len(body.data) == A_TURN
    assert served.transport.reading
    assert not served.transport.is_closing()


async def test_an_unwanted_body_that_is_here_in_part_ends_the_connection_and_looking_for_its_end_has_a_bound() -> None:
    for count, kept in ((A_TURN - 2, True), (2000, False)):
        served = Served(answer_ok)
        served.receive(CHUNKED + tiny(count) + b"0\r\n\r\n")
        assert served.transport.written == (OK if kept else OK_CLOSE)


async def test_who_answers_before_a_body_that_waits_and_is_all_here_serves_on() -> None:
    bodies: list[Body] = []

    def act(exchange: Stream) -> None:
        bodies.append(Body())
        exchange.read_body(bodies[-1])

    served = Served(act)
    served.receive(CHUNKED + tiny(A_TURN + 50) + b"0\r\n\r\n")
    served.connection.pause_writing()
    served.only.answer(200, [], b"ok")
    await served.turns()
    served.receive(CHUNKED + tiny(A_TURN + 50) + b"0\r\n\r\n")
    await served.turns()
    assert [body.data for body in bodies] == [letters(A_TURN), letters(A_TURN + 50)]
    assert bodies[1].events[-2:] == ["end", "flush"]


async def test_a_peer_that_leaves_while_its_body_waits_is_gone() -> None:
    for lose in (Served.lose, lambda served: served.connection.eof_received()):
        body = Body()
        served = Served(lambda exchange, body=body: exchange.read_body(body))  # type: ignore[misc]
        served.receive(CHUNKED + tiny(2000) + b"0\r\n\r\n")
        lose(served)
        await served.turns()
        assert served.only.gone
        assert len(body.data) == A_TURN


async def test_a_broken_chunk_is_found_in_its_turn() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(CHUNKED + tiny(2000) + b"x\r\n" + GET)
    await served.turns()
    assert body.events[-1] == "error"
    assert body.reasons == [Reason.BAD_REQUEST]
    assert len(body.data) < 2000
    served.only.answer(400, [], b"")
    assert len(served.handler.requests) == 1


async def test_a_body_that_waits_for_its_turn_is_not_late() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), body_timeout_s=10)
    served.receive(CHUNKED + tiny(2000) + b"0\r\n\r\n")
    for _ in range(5):
        served.after(9)
    await served.turns()
    assert body.events[-2:] == ["end", "flush"]


async def test_requests_that_wait_are_not_served_while_the_peer_takes_no_answer() -> None:
    served = Served(answer_ok)
    served.receive(GET * 3)
    served.connection.pause_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    assert served.transport.written == OK
    served.connection.resume_writing()
    await served.turns()
    assert served.transport.written == OK * 3


async def test_bytes_that_come_while_requests_wait_give_no_second_turn() -> None:
    served = Served(answer_ok)
    served.receive(GET * 3)
    served.receive(GET)
    assert served.transport.written == OK
    await served.turns()
    assert served.transport.written == OK * 4


async def test_requests_that_wait_at_the_end_are_not_served_after_it() -> None:
    served = Served(answer_ok)
    served.receive(GET * 3)
    served.lose()
    await served.turns()
    assert len(served.handler.requests) == 1


async def test_a_request_that_waits_at_a_drain_is_served_and_told_to_come_again() -> None:
    served = Served(answer_ok)
    served.receive(GET * 3)
    served.connection.finish()
    assert not served.transport.closed
    await served.turns()
    assert served.transport.written == OK + OK_CLOSE


REFUSED = {
    "bad head": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Reason.BAD_REQUEST, 400),
    "ambiguous length": (
        post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        Reason.AMBIGUOUS_FRAMING,
        400,
    ),
    "two expectations": (
        post(b"Content-Length: 3\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n"),
        Reason.EXPECTATION_REFUSED,
        417,
    ),
    "a list of expectations": (
        post(b"Content-Length: 3\r\nExpect: 100-continue, x\r\n"),
        Reason.EXPECTATION_REFUSED,
        417,
    ),
    "an empty expectation": (post(b"Content-Length: 3\r\nExpect:\r\n"), Reason.EXPECTATION_REFUSED, 417),
    "another expectation": (post(b"Content-Length: 3\r\nExpect: 200-ok\r\n"), Reason.EXPECTATION_REFUSED, 417),
    "h2c beside WebSocket": (post(b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"), Reason.UPGRADE_REFUSED, 400),
    "TLS": (post(b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), Reason.UPGRADE_REFUSED, 400),
    "WebSocket": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
        Reason.UPGRADE_REFUSED,
        400,
    ),
    "Upgrade without Connection": (post(b"Upgrade: websocket\r\n"), Reason.UPGRADE_REFUSED, 400),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03\x01", Reason.METHOD_REFUSED, 405),
    "TLS on a plain port": (b"\x16\x03\x01\x02\0\x01\0", Reason.BAD_REQUEST, 400),
    "body announced too long": (post(b"Content-Length: 101\r\n"), Reason.TOO_LARGE, 413),
    "target too long": (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Reason.URI_TOO_LONG, 414),
    "head too large": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000 + b"\r\n\r\n", Reason.HEAD_TOO_LARGE, 431),
    "too many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 20 + b"\r\n", Reason.HEAD_TOO_LARGE, 431),
    "absolute-form": (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Reason.PATH_REFUSED, 400),
}


@pytest.mark.parametrize(("stream", "reason", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_not_served_is_refused_and_nothing_after_it_is_read(
    stream: bytes, reason: Reason, status: int
) -> None:
    served = Served(answer_ok, max_target_bytes=100, max_head_bytes=1000, max_fields=20, max_body_bytes=100)
    served.receive(stream + GET)
    served.receive(GET)
    assert served.refusal.reason == reason
    assert served.handler.requests == []
    assert served.transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert served.transport.written.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in served.transport.written


@pytest.mark.parametrize(("stream", "reason", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_does_not_depend_on_how_its_request_is_cut(stream: bytes, reason: Reason, status: int) -> None:
    served = Served(answer_ok, max_target_bytes=100, max_head_bytes=1000, max_fields=20, max_body_bytes=100)
    for byte in stream:
        served.receive(bytes([byte]))
    assert served.refusal.reason == reason
    assert served.handler.requests == []


async def test_a_valid_head_that_is_not_served_is_still_known_to_the_record() -> None:
    served = Served()
    served.receive(post(b"Expect: 200-ok\r\n"))
    ((exchange, _),) = served.handler.refused
    assert exchange.head is not None
    assert exchange.head.target == b"/a"


async def test_absolute_form_is_served_where_told() -> None:
    served = Served(answer_ok, proxy_form=True)
    served.receive(b"GET http://crm.mesh/a HTTP/1.1\r\nHost: crm.mesh\r\n\r\n")
    head = served.only.head
    assert head is not None
    assert (head.target, head.authority) == (b"/a", "crm.mesh")


# --- how connections end


@pytest.mark.parametrize(
    "stream",
    [GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), GET.replace(b"HTTP/1.1", b"HTTP/1.0")],
    ids=["Connection: close", "HTTP/1.0"],
)
async def test_a_connection_that_may_not_be_kept_closes_after_its_answer(stream: bytes) -> None:
    served = Served(answer_ok)
    served.receive(stream)
    assert served.transport.writes == [OK_CLOSE]
    assert served.transport.closed


async def test_an_answer_before_the_body_closes_the_connection_after_lingering() -> None:
    served = Served(answer_ok, linger_timeout_s=3.0)
    served.receive(post(b"Content-Length: 10\r\n", b"abc"))
    assert served.transport.writes == [OK_CLOSE]
    assert (served.transport.ended, served.transport.closed) == (True, False)
    assert served.transport.reading
    served.receive(b"defghij" + GET)
    assert len(served.handler.requests) == 1
    served.after(2.9)
    assert not served.transport.closed
    served.after(0.2)
    assert served.transport.closed


async def test_a_peer_that_reset_unseen_before_an_early_answer_is_no_error() -> None:
    served = Served()
    served.receive(post(b"Content-Length: 10\r\n", b"abc"))
    served.transport.reset_unseen = True
    served.only.answer(200, [], b"ok")
    assert served.only.ended
    served.lose()


async def test_lingering_has_a_limit_of_bytes() -> None:
    served = Served(answer_ok, max_linger_bytes=10)
    served.receive(post(b"Content-Length: 1000\r\n"))
    served.receive(b"a" * 10)
    assert not served.transport.closed
    served.receive(b"a")
    assert served.transport.closed


async def test_over_tls_lingering_ends_with_silence() -> None:
    served = Served(answer_ok, extra={"ssl_object": object()}, linger_silence_s=0.3)
    served.receive(post(b"Content-Length: 1000\r\n"))
    assert not served.transport.ended
    served.after(0.2)
    served.receive(b"a")
    served.after(0.2)
    assert not served.transport.closed
    served.after(0.2)
    assert served.transport.closed


async def test_an_unread_body_that_is_all_there_does_not_close_the_connection() -> None:
    served = Served(answer_ok)
    served.receive(post(b"Content-Length: 3\r\n", b"abc"))
    served.receive(post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n") + GET)
    await served.turns()
    assert served.transport.written == OK * 3


async def test_a_broken_body_nobody_read_closes_the_connection() -> None:
    served = Served(answer_ok)
    served.receive(post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n") + GET)
    assert served.transport.writes == [OK_CLOSE]
    assert len(served.handler.requests) == 1


async def test_a_connection_of_its_full_age_is_not_kept() -> None:
    served = Served(answer_ok, max_age_s=100)
    served.receive(GET)
    served.clock.now += 101
    served.receive(GET)
    assert served.transport.writes == [OK, OK_CLOSE]
    assert served.transport.closed


async def test_an_idle_connection_of_its_full_age_is_closed() -> None:
    served = Served(answer_ok, max_age_s=50, keep_alive_timeout_s=75)
    served.clock.now += 30
    served.receive(GET)
    served.after(19)
    assert not served.transport.closed
    served.after(2)
    assert served.transport.closed


@pytest.mark.parametrize("draining", [False, True])
async def test_an_idle_connection_is_not_closed_over_a_request_that_was_only_not_read_yet(*, draining: bool) -> None:
    with connected() as (ours, theirs):
        served = Served(answer_ok, keep_alive_timeout_s=75, extra={"socket": ours})
        served.receive(GET)
        theirs.sendall(GET)
        if draining:
            served.connections.drain(1.0)
        served.after(80)
        before = served.transport.closed
        served.receive(ours.recv(1000))
        served.after(80)
        assert (before, served.transport.closed, len(served.handler.requests)) == (False, True, 2)


async def test_after_a_refusal_the_peer_can_finish_sending_and_read_it() -> None:
    served = Served(answer_ok)
    served.receive(post(b"Expect: 200-ok\r\nContent-Length: 1000\r\n"))
    assert (served.transport.ended, served.transport.closed) == (True, False)
    served.receive(b"a" * 1000 + GET)
    assert served.handler.requests == []


async def test_draining_closes_idle_connections_after_a_grace_and_lets_running_requests_finish() -> None:
    idle, busy = Served(answer_ok), Served()
    idle.receive(GET)
    busy.receive(GET)
    for served in (idle, busy):
        served.connections.drain(1.0)
        served.after(0.9)
    assert (idle.transport.closed, busy.transport.closed) == (False, False)
    for served in (idle, busy):
        served.after(0.1)
    assert (idle.transport.closed, busy.transport.closed) == (True, False)
    busy.only.answer(200, [], b"ok")
    assert busy.transport.writes == [OK_CLOSE]
    assert busy.transport.closed
    idle.connection.finish()
    busy.connection.finish()


async def test_requests_that_waited_when_the_drain_began_are_served_and_the_last_of_them_says_so() -> None:
    served = Served()
    served.receive(GET * 3)
    served.connections.drain(1.0)
    for _ in range(3):
        served.handler.requests[-1].answer(200, [], b"ok")
        await served.turns()
    assert served.transport.writes == [OK, OK, OK_CLOSE]
    assert served.transport.closed


@pytest.mark.parametrize(
    ("waiting", "later", "seconds"),
    [(GET, b"", 5.0), (b"", GET, 0.1), (GET[:-2], b"", 0.1)],
    ids=["after some time", "come later", "not whole"],
)
async def test_other_requests_that_wait_in_a_drain_are_not(waiting: bytes, later: bytes, seconds: float) -> None:
    served = Served()
    served.receive(GET + waiting)
    served.connections.drain(1.0, 5.0)
    served.after(seconds)
    if later:
        served.receive(later)
    served.only.answer(200, [], b"ok")
    await served.turns()
    assert (served.transport.writes, len(served.handler.requests)) == ([OK_CLOSE], 1)


async def test_a_request_that_was_under_way_when_the_drain_began_is_served_and_is_the_last() -> None:
    served = Served(answer_ok)
    served.receive(GET)
    served.connections.drain(1.0)
    served.after(0.9)
    served.receive(GET)
    assert served.transport.writes == [OK, OK_CLOSE]
    assert served.transport.closed


async def test_an_answer_that_had_begun_before_the_drain_did_not_say_that_it_is_the_last_so_one_more_may_come() -> None:
    served = Served()
    served.receive(GET)
    exchange = served.only
    exchange.send_head(*passed(200, 2))
    served.connections.drain(1.0)
    served.after(5.0)
    exchange.send_data(b"ok")
    exchange.send_end()
    served.after(0.9)
    assert not served.transport.closed
    served.after(0.1)
    assert served.transport.closed


async def test_finish_lets_a_refused_peer_read_its_answer() -> None:
    refused = Served(answer_ok)
    refused.receive(post(b"Content-Length: 1000\r\n"))
    refused.connection.finish()
    assert not refused.transport.closed
    refused.after(10)
    assert refused.transport.closed


async def test_finish_closes_at_once_or_after_the_running_request() -> None:
    idle, busy = Served(answer_ok), Served()
    idle.receive(GET)
    busy.receive(GET)
    idle.connection.finish()
    busy.connection.finish()
    assert (idle.transport.closed, busy.transport.closed) == (True, False)
    busy.only.answer(200, [], b"ok")
    assert busy.transport.writes == [OK_CLOSE]
    assert busy.transport.closed


# --- deadlines


async def test_a_silent_new_connection_is_closed_without_a_word() -> None:
    served = Served(head_timeout_s=10)
    served.after(9.9)
    assert not served.transport.closed
    served.after(0.2)
    assert (served.transport.closed, served.transport.written, served.handler.refused) == (True, b"", [])


async def test_an_idle_kept_connection_is_closed_without_a_word() -> None:
    served = Served(answer_ok, head_timeout_s=10, keep_alive_timeout_s=75)
    served.clock.now += 1
    served.receive(GET)
    served.after(74.9)
    assert not served.transport.closed
    served.after(0.2)
    assert (served.transport.closed, served.transport.written) == (True, OK)


async def test_a_head_that_comes_too_slowly_is_answered_408_however_it_drips() -> None:
    served = Served(head_timeout_s=10)
    for byte in GET[:10]:
        served.receive(bytes([byte]))
        served.after(0.9)
    assert served.handler.refused == []
    served.receive(GET[10:11])
    served.after(1.1)
    assert served.refusal.reason == Reason.TIMEOUT
    assert served.transport.written.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_stops_coming_is_an_error_and_no_end() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), body_timeout_s=30)
    served.receive(post(b"Content-Length: 100000\r\n", b"abc"))
    served.after(29)
    served.receive(b"d" * 256 * 30)
    served.after(1)
    served.after(29)
    assert body.reasons == []
    served.after(2)
    assert body.reasons == [Reason.TIMEOUT]
    assert "end" not in body.events
    served.only.answer(408, [], b"")
    assert b"connection: close" in served.transport.written


async def test_a_body_that_drips_is_held_no_longer_than_a_silent_one() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), body_timeout_s=30, min_rate=1)
    served.receive(post(b"Content-Length: 1000\r\n"))
    for _ in range(30):
        served.receive(b"d" * 1)
        served.after(0.99)
    assert body.reasons == []
    served.after(1)
    assert body.reasons == []  # 30 bytes in 30 s are enough
    for _ in range(29):
        served.receive(b"d")
        served.after(1)
    served.after(1.5)
    assert body.reasons == [Reason.TIMEOUT]


async def test_each_body_on_a_connection_has_its_own_time() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), body_timeout_s=30)
    for _ in range(3):
        served.receive(post(b"Content-Length: 4\r\n", b"abc"))
        served.after(20)
        served.receive(b"d")
        served.handler.requests[-1].answer(200, [], b"")
    assert (body.data, body.reasons) == (b"abcd" * 3, [])


async def test_a_body_that_is_not_wanted_now_has_no_deadline() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), body_timeout_s=30)
    served.receive(post(b"Content-Length: 10\r\n", b"abc"))
    served.only.pause_body()
    paused = served.transport.reading
    served.after(100)
    served.only.resume_body()
    assert (paused, served.transport.reading) == (False, True)
    served.after(29)
    assert body.reasons == []


@pytest.mark.parametrize("told", ["sender", "owner"])
async def test_a_peer_that_takes_too_little_of_an_answer_is_cut_for_being_slow(told: str) -> None:
    served = Served(write_timeout_s=30, unread_timeout_s=100)
    served.receive(GET)
    heard: list[str] = []
    served.only.sender, served.only.owner = (Told(heard) if kind == told else None for kind in ("sender", "owner"))
    served.transport.unsent = 100_000
    served.connection.pause_writing()
    served.after(29)
    served.transport.unsent = 90_000
    served.after(0.5)
    served.after(29)
    served.transport.unsent = 89_999
    before = served.transport.aborted, [one for one in heard if one != "pause"]
    assert before == (False, [])
    served.after(2)
    assert served.transport.aborted
    served.lose()  # as the loop tells afterwards
    assert [one for one in heard if one != "pause"] == [Reason.PEER_SLOW]


@pytest.mark.parametrize(("read", "waits_s"), [(0, 5), (7_679, 5), (7_680, 30)])
async def test_an_answer_of_which_nothing_was_read_waits_for_less_time(read: int, waits_s: int) -> None:
    """Twin: who has read a little before has ``write_timeout_s``, as before."""
    served = Served()
    served.receive(GET)
    served.only.owner = Told([])
    served.only.send_head(*passed(200, 1_000_000))
    served.only.send_data(b"x" * 500_000)
    served.only.flush()
    served.connections.writes.write_all()
    served.transport.unsent = served.only.bytes_out - read
    served.connection.pause_writing()
    served.after(0.25)
    served.after(waits_s - 0.25)
    assert not served.transport.aborted
    served.after(0.5)
    assert served.transport.aborted


async def test_who_waits_gives_way_at_once_and_a_head_that_has_begun_is_refused() -> None:
    idle, slow, begun, busy = Served(answer_ok), Served(), Served(), Served()
    slow.clock.now += 1
    slow.receive(GET[:-2])
    begun.receive(GET[:3])
    busy.receive(GET)
    assert [one.connection.waits_since for one in (idle, slow, begun, busy)] == [1000.0, 1001.0, 1000.0, None]
    assert not idle.connection.kept
    idle.receive(GET)
    idle.clock.now += 1
    idle.receive(GET)
    assert (idle.connection.kept, idle.connection.waits_since) == (True, 1001.0)
    for served in (idle, slow, begun):
        served.connection.give_way(Unavailable(Reason.OVERLOADED))
        assert (served.transport.aborted, len(served.connections)) == (True, 0)
        served.connection.connection_lost(None)
    assert slow.refusal.reason == Reason.OVERLOADED
    assert (idle.handler.refused, begun.handler.refused) == ([], [])


async def test_who_was_answered_and_sends_on_gives_way_too() -> None:
    served = Served(answer_ok)
    served.receive(post(b"Content-Length: 1000\r\n"))
    served.clock.now += 1
    served.receive(b"abc")
    assert (served.connection.waits_since, served.connection.kept) == (1000.0, False)


async def test_a_peer_that_does_not_take_the_end_of_an_answer_is_cut_too() -> None:
    served = Served(answer_ok, write_timeout_s=30)
    served.transport.unsent = 10
    served.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    served.after(29)
    assert served.transport.aborted is False
    served.after(2)
    assert (served.transport.aborted, len(served.connections)) == (True, 0)


async def test_who_cannot_be_said_to_have_everything_is_waited_for_as_ever() -> None:
    served = Served(answer_ok, write_timeout_s=30)
    served.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    served.after(29)
    assert served.transport.aborted is False
    served.after(2)
    assert served.transport.aborted is True


@pytest.mark.parametrize("unsent", [0, 10])
async def test_a_peer_that_was_given_everything_is_not_waited_for(unsent: int) -> None:
    with connected() as (ours, _theirs):
        served = Served(answer_ok, write_timeout_s=30, extra={"socket": ours})
        served.transport.unsent = unsent
        served.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        for _ in range(4):
            served.after(0.25)
        early = served.transport.aborted
        served.after(0.25)
        assert (early, served.transport.aborted) == (False, unsent == 0)


class Gone:
    """A real socket whose peer acknowledges nothing any more, as when its machine or its network is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno
        self._last = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)

    def getsockopt(self, *_words: int) -> bytes:
        return self._last


@pytest.mark.parametrize("gone", [True, False])
async def test_a_peer_that_had_everything_and_is_gone_is_not_waited_for_to_take_a_last_word(gone: bool) -> None:
    with connected() as (ours, _theirs):
        served = Served(answer_ok, write_timeout_s=30, extra={"socket": Gone(ours) if gone else ours})
        served.receive(GET)
        served.clock.now += 0.25
        served.connection.finish()
        fill(ours)  # close_notify; a live peer reads some of it, and may want the rest
        served.after(0.75)
        early = served.transport.aborted
        served.after(0.25)
        assert (early, served.transport.aborted) == (False, gone)


@pytest.mark.parametrize(("idle_s", "queued"), [(0.2, False), (5.0, True)], ids=["not yet queued", "queued"])
async def test_an_answer_that_a_vanished_peer_may_not_have_is_waited_for_as_ever(idle_s: float, queued: bool) -> None:
    with connected() as (ours, _theirs):
        served = Served(answer_ok, write_timeout_s=30, extra={"socket": Gone(ours)})
        served.receive(GET)
        if queued:
            fill(ours)
        served.clock.now += idle_s
        served.connection.finish()
        if not queued:
            fill(ours)
        served.after(29)
        assert served.transport.aborted is False
        served.after(2)
        assert served.transport.aborted is True


# --- bodies and backpressure


async def test_body_bytes_wait_until_somebody_reads_them() -> None:
    served = Served()
    served.receive(post(b"Content-Length: 6\r\n", b"abc"))
    body = Body()
    served.only.read_body(body)
    assert body.data == b"abc"
    served.receive(b"def")
    assert body.events == ["data", "flush", "data", "end", "flush"]


@pytest.mark.parametrize(
    ("first", "more"),
    [(post(b"Content-Length: 99999\r\n"), b"a"), (GET, GET)],
    ids=["of a body", "of other requests"],
)
async def test_a_little_may_wait_so_that_a_peer_is_seen_leaving_and_then_no_more_is_read(
    first: bytes, more: bytes
) -> None:
    served = Served()
    served.receive(first + more)
    little = served.transport.reading
    served.receive(more * (16 * 1024 // len(more)))
    assert (little, served.transport.reading) == (True, False)
    served.receive(more)
    served.connection.eof_received()
    assert served.only.gone


async def test_a_peer_that_leaves_while_nobody_reads_is_seen_too() -> None:
    with connected() as (ours, theirs):
        served = Served(lambda exchange: exchange.read_body(Body()), extra={"socket": ours})
        served.receive(post(b"Content-Length: 99999\r\n", b"a"))
        served.only.pause_body()
        served.after(1)
        before = served.only.gone
        theirs.close()
        served.after(1)
        assert (before, served.only.gone, served.transport.aborted) == (False, True, True)
        assert len(served.connections) == 0


async def test_reading_a_request_without_body_ends_at_once() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(GET)
    assert (body.events, served.only.body_complete) == (["end"], True)


async def test_a_body_that_came_with_its_head_is_taken_at_once() -> None:
    taken: list[bytes | None] = []
    served = Served(lambda exchange: taken.append(exchange.take_whole_body()))
    whole = post(b"Content-Length: 3\r\n", b"abc")
    served.receive(whole)
    assert (taken, served.only.bytes_in, served.only.body_complete) == ([b"abc"], len(whole), True)
    answer_ok(served.only)
    served.receive(GET)  # read as a request of its own
    assert (served.transport.writes, taken) == ([OK], [b"abc", None])


NOT_WHOLE = {
    "more to come": (post(b"Content-Length: 3\r\n", b"ab"), b"c"),
    "another request behind it": (post(b"Content-Length: 3\r\n", b"abc") + GET, b""),
    "chunked": (post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"), b""),
}


@pytest.mark.parametrize(("first", "then"), NOT_WHOLE.values(), ids=NOT_WHOLE.keys())
async def test_a_body_that_is_not_here_as_a_whole_and_alone_is_read_as_it_comes(first: bytes, then: bytes) -> None:
    body, taken = Body(), []

    def act(exchange: Stream) -> None:
        taken.append(exchange.take_whole_body())
        exchange.read_body(body)

    served = Served(act)
    served.receive(first)
    if then:
        served.receive(then)
    assert (taken, body.data, body.events[-2:]) == ([None], b"abc", ["end", "flush"])
    assert served.handler.requests[0].bytes_in == len((first + then).removesuffix(GET))


async def test_a_body_that_somebody_takes_is_not_taken_by_another() -> None:
    body = Body()
    served = Served()
    served.receive(post(b"Content-Length: 3\r\n"))
    served.only.pause_body()
    served.only.read_body(body)
    served.receive(b"abc")
    assert served.only.take_whole_body() is None
    served.only.resume_body()
    assert body.data == b"abc"


async def test_a_whole_body_may_be_taken_later_and_reading_goes_on_then() -> None:
    served = Served()
    served.receive(post(b"Content-Length: 20000\r\n", b"a" * 20_000))
    before = served.transport.reading
    assert served.only.take_whole_body() == b"a" * 20_000
    assert (before, served.transport.reading) == (False, True)


@pytest.mark.parametrize("how", ["answered", "gone"])
async def test_the_body_of_an_exchange_that_is_over_is_taken_by_nobody(how: str) -> None:
    served = Served()
    served.receive(post(b"Content-Length: 3\r\n", b"abc"))
    if how == "answered":
        answer_ok(served.only)
    else:
        served.lose()
    assert served.only.take_whole_body() is None


async def test_a_paused_body_is_given_after_the_pause() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(post(b"Content-Length: 6\r\n", b"abc"))
    served.only.pause_body()
    served.receive(b"def")
    assert body.data == b"abc"
    served.only.resume_body()
    assert body.data == b"abcdef"
    assert body.events.count("end") == 1


async def test_a_broken_body_is_an_error_and_closes_the_connection() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
    served.receive(b"zz\r\n\r\n" + GET)
    assert body.reasons == [Reason.BAD_REQUEST]
    served.only.answer(400, [], b"")
    assert b"connection: close" in served.transport.written
    assert len(served.handler.requests) == 1


async def test_a_chunked_body_over_the_limit_is_an_error() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body), max_body_bytes=5)
    served.receive(post(b"Transfer-Encoding: chunked\r\n", b"6\r\nabcdef\r\n"))
    assert body.reasons == [Reason.TOO_LARGE]


class Told:
    """Sender and owner of an exchange, who keeps what is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def gone(self) -> None:
        self._told.append("gone")

    def stop(self, error: SidecarError) -> None:
        self._told.append(error.reason)

    def on_caller_gone(self, error: SidecarError | None = None) -> None:
        self._told.append("gone" if error is None else error.reason)

    def on_caller_pause(self) -> None:
        self._told.append("pause")

    def on_caller_resume(self) -> None:
        self._told.append("resume")


async def test_the_owner_learns_of_a_vanished_peer_from_the_sender_while_there_is_one() -> None:
    served = Served()
    served.receive(GET)
    to_sender: list[str] = []
    to_owner: list[str] = []
    served.only.sender, served.only.owner = Told(to_sender), Told(to_owner)
    served.lose()
    assert (to_sender, to_owner) == (["gone"], [])


async def test_backpressure_of_the_peer_is_told() -> None:
    served = Served()
    served.receive(GET)
    told: list[str] = []
    served.only.sender = Told(told)
    served.connection.pause_writing()
    assert served.only.writing_paused
    served.connection.resume_writing()
    assert (told, served.only.writing_paused) == (["pause", "resume"], False)


# --- peers that vanish


@pytest.mark.parametrize("how", ["end of file", "connection lost"])
@pytest.mark.parametrize("told", ["sender", "owner"])
async def test_a_vanished_peer_is_told_once_and_nothing_more_is_written(how: str, told: str) -> None:
    served = Served()
    served.receive(GET)
    gone: list[str] = []
    served.only.sender, served.only.owner = (Told(gone) if kind == told else None for kind in ("sender", "owner"))
    if how == "end of file":
        served.connection.eof_received()
    served.lose()
    assert (gone, served.only.gone) == (["gone"], True)
    served.only.answer(200, [], b"ok")
    served.only.send_head(*passed(200, None))
    served.only.send_data(b"a")
    served.only.send_end()
    served.only.abort()
    assert served.transport.written == b""


async def test_a_peer_that_vanishes_after_its_answer_is_no_event() -> None:
    served = Served(answer_ok)
    served.receive(GET)
    gone: list[str] = []
    served.only.sender = served.only.owner = Told(gone)
    served.connection.eof_received()
    served.lose()
    assert gone == []


async def test_requests_that_wait_behind_others_are_not_served_to_a_peer_that_has_left() -> None:
    served = Served(answer_ok)
    served.receive(GET * 3)
    served.connection.eof_received()
    await served.turns()
    assert len(served.handler.requests) == 1


@pytest.mark.parametrize("sent", [b"", GET, GET * 2, GET[:-2]], ids=["nothing", "one", "two", "half"])
async def test_a_connection_that_its_peer_has_ended_is_not_closed_again(sent: bytes) -> None:
    served = Served(answer_ok, keep_alive_timeout_s=1.0)
    if sent:
        served.receive(sent)
    assert not served.connection.eof_received()
    served.transport.close()  # as an event loop does that is told so
    served.connection.finish()
    await served.turns()
    served.after(2.0)
    served.after(4.0)


async def test_a_head_cut_short_by_end_of_file_is_answered() -> None:
    served = Served()
    served.receive(GET[:-2])
    served.connection.eof_received()
    assert served.refusal.reason == Reason.BAD_REQUEST
    assert served.transport.written.startswith(b"HTTP/1.1 400 ")


async def test_a_head_whose_first_line_was_read_is_recorded_when_its_peer_vanishes() -> None:
    served = Served()
    served.receive(GET[:-2])
    served.lose()
    ((exchange, error),) = served.handler.refused
    assert (error.reason, exchange.gone, served.transport.written) == (Reason.PEER_GONE, True, b"")


async def test_a_connection_lost_before_its_first_line_leaves_nothing() -> None:
    served = Served()
    served.receive(b"GET /a")
    served.lose()
    assert served.handler.refused == []


async def test_a_body_cut_short_has_no_end() -> None:
    body = Body()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(post(b"Content-Length: 10\r\n", b"abc"))
    served.connection.eof_received()
    served.lose()
    assert "end" not in body.events
    assert served.only.gone


# --- cost and robustness


async def test_a_warm_request_makes_no_task_and_no_timer() -> None:
    served = Served(answer_ok)
    served.receive(GET)
    tasks = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    timers = len(getattr(loop, "_scheduled", ()))
    for _ in range(50):
        served.receive(GET)
    assert asyncio.all_tasks() == tasks
    assert len(getattr(loop, "_scheduled", ())) == timers


async def test_a_flood_of_fragments_needs_no_more_than_ten_times_its_bytes() -> None:
    served = Served(max_head_bytes=65536)
    served.receive(b"GET / HTTP/1.1\r\nHost: a\r\n")
    fragments = [b"x%03d: y\r\n" % number for number in range(3000)]
    tracemalloc.start()
    try:
        for fragment in fragments:
            served.receive(fragment)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 3000 * len(fragments[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from([b"", GET, b"POST / HTTP/1.1\r\nHost: a\r\n"]))
def test_any_bytes_are_answered_or_refused_and_never_an_exception(pieces: list[bytes], start: bytes) -> None:
    async def run() -> None:
        served = Served(answer_ok)
        for piece in [start, *pieces]:
            served.receive(piece)
        served.connection.eof_received()
        served.lose()
        answered = served.transport.written.count(b"HTTP/1.1 ")
        assert answered <= len(served.handler.requests) + len(served.handler.refused)
        assert len(served.handler.refused) <= 1

    asyncio.run(run())
