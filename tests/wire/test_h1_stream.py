from __future__ import annotations

import socket

import pytest

from tests.wire.bench import Body, Served, answer_ok
from tests.wire.written import passed

GET = b"GET /a HTTP/1.1\r\nHost: agent\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0")


def streamed(request: bytes, status: int, length: int | None, *pieces: bytes) -> Served:
    served = Served()
    served.receive(request)
    served.only.send_head(*passed(status, length, [(b"x", b"y")]))
    for piece in pieces:
        served.only.send_data(piece)
    served.only.send_end()
    return served


STREAMED = {
    "length": (GET, 200, 3, b"content-length: 3\r\n\r\nabc", False),
    "chunked": (GET, 200, None, b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", False),
    "HTTP/1.0 with length": (OLD, 200, 3, b"content-length: 3\r\nconnection: close\r\n\r\nabc", True),
    "HTTP/1.0 without length": (OLD, 200, None, b"connection: close\r\n\r\nabc", True),
    "HEAD with length": (HEAD, 200, 3, b"content-length: 3\r\n\r\n", False),
    "HEAD without length": (HEAD, 200, None, b"\r\n", False),
    "204": (GET, 204, 0, b"\r\n", False),
    "204 without length": (GET, 204, None, b"\r\n", False),
    "304 with length": (GET, 304, 3, b"content-length: 3\r\n\r\n", False),
    "304 without length": (GET, 304, None, b"\r\n", False),
}


@pytest.mark.parametrize(
    ("request_bytes", "status", "length", "rest", "closes"), STREAMED.values(), ids=STREAMED.keys()
)
async def test_an_answer_is_framed_as_the_request_and_its_status_demand(
    request_bytes: bytes, status: int, length: int | None, rest: bytes, closes: bool
) -> None:
    served = streamed(request_bytes, status, length, b"ab", b"c")
    first, _, after = served.transport.written.partition(b"\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert after == b"x: y\r\n" + rest
    assert len(served.transport.writes) == 1
    assert served.transport.closed is closes


@pytest.mark.parametrize(
    ("request_bytes", "status", "length", "rest", "closes"),
    [row for name, row in STREAMED.items() if name not in ("chunked", "HTTP/1.0 without length")],
)
async def test_an_answer_given_whole_is_the_same_in_one_write(
    request_bytes: bytes, status: int, length: int | None, rest: bytes, closes: bool
) -> None:
    served = Served()
    served.receive(request_bytes)
    exchange = served.only
    exchange.send_whole(*passed(status, length, [(b"x", b"y")]), b"abc" if rest.endswith(b"abc") else b"")
    (written,) = served.transport.writes
    assert written == streamed(request_bytes, status, length, b"abc").transport.written
    assert written.endswith(b"\r\nx: y\r\n" + rest)
    assert (exchange.ended, exchange.bytes_out, served.transport.closed) == (True, len(written), closes)


@pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding", b"connection"])
async def test_an_answer_with_framing_fields_of_its_own_is_a_bug_and_not_sent(name: bytes) -> None:
    served = Served()
    served.receive(GET)
    with pytest.raises(ValueError, match="where the message ends"):
        served.only.answer(200, [(name, b"7")], b"ok")
    assert served.transport.written == b""


async def test_an_answer_to_head_has_the_length_and_not_the_content() -> None:
    served = Served(answer_ok)
    served.receive(HEAD)
    assert served.transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def test_an_answer_can_ask_for_the_connection_to_close() -> None:
    served = Served(lambda exchange: exchange.answer(401, [], b"", close=True))
    served.receive(GET)
    assert b"connection: close\r\n" in served.transport.written
    assert served.transport.closed


async def test_what_is_sent_between_flushes_is_one_write() -> None:
    served = Served()
    served.receive(GET)
    exchange = served.only
    exchange.send_head(*passed(200, None))
    exchange.send_data(b"a")
    assert served.transport.writes == []
    exchange.flush()
    exchange.flush()
    assert len(served.transport.writes) == 1
    exchange.send_data(b"b")
    exchange.send_end()
    assert served.transport.writes[1] == b"1\r\nb\r\n0\r\n\r\n"
    assert exchange.bytes_out == len(served.transport.written)


async def test_what_is_sent_inside_a_read_leaves_at_its_end() -> None:
    served = Served(lambda exchange: exchange.send_head(*passed(200, 3)))
    served.receive(GET)
    assert len(served.transport.writes) == 1


async def test_a_second_answer_is_a_bug() -> None:
    served = Served()
    served.receive(GET)
    served.only.send_head(*passed(200, 2))
    with pytest.raises(RuntimeError, match="one answer"):
        served.only.send_head(*passed(200, 2))


async def test_nothing_is_sent_after_the_end() -> None:
    served = Served(answer_ok)
    served.receive(GET)
    before = list(served.transport.writes)
    served.only.answer(500, [], b"late")
    served.only.send_data(b"late")
    served.only.send_end()
    served.only.abort()
    assert served.transport.writes == before
    assert not served.transport.is_closing()


async def test_an_old_exchange_cannot_touch_the_next_one() -> None:
    served = Served()
    served.receive(GET)
    served.only.answer(200, [], b"ok")
    served.receive(GET)
    served.handler.requests[0].abort()
    assert not served.transport.is_closing()


async def test_an_answer_shorter_than_it_says_ends_as_a_cut_one() -> None:
    served = streamed(GET, 200, 5, b"abc")
    assert served.transport.written.endswith(b"\r\n\r\nabc")
    assert served.transport.closed


async def test_an_end_without_an_answer_cuts_the_connection() -> None:
    served = Served()
    served.receive(GET)
    served.only.send_end()
    assert (served.transport.written, served.transport.closed) == (b"", True)


async def test_an_aborted_chunked_answer_has_no_last_chunk() -> None:
    served = Served()
    served.receive(GET + GET)
    served.only.send_head(*passed(200, None))
    served.only.send_data(b"abc")
    served.only.abort()
    assert served.transport.written.endswith(b"3\r\nabc\r\n")
    assert served.transport.closed
    assert len(served.handler.requests) == 1


async def test_an_aborted_answer_without_any_length_is_reset() -> None:
    left, right = socket.socketpair()
    with left, right:
        served = Served(extra={"socket": left})
        served.receive(OLD)
        served.only.send_head(*passed(200, None))
        served.only.send_data(b"abc")
        served.only.abort()
        assert served.transport.aborted
        linger = left.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert linger == b"\x01\0\0\0\0\0\0\0"


async def test_an_answer_inside_the_body_callback_is_the_last_word() -> None:
    class Impatient(Body):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            served.only.answer(413, [], b"")

    body = Impatient()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    served.receive(b"def")
    assert body.events[0] == "data"
    assert "end" not in body.events
    assert served.transport.written.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in served.transport.written


async def test_an_answer_inside_the_callback_of_the_last_bytes_is_the_last_word_too() -> None:
    class Impatient(Body):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            served.only.answer(413, [], b"")

    body = Impatient()
    served = Served(lambda exchange: exchange.read_body(body))
    served.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert body.events == ["data"]
    served.receive(GET)
    assert len(served.handler.requests) == 2


async def test_reading_after_the_answer_gives_nothing() -> None:
    served = Served(answer_ok)
    served.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    body = Body()
    served.only.read_body(body)
    served.receive(b"def")
    assert body.events == []


async def test_the_peer_can_be_known() -> None:
    tls = object()
    served = Served(extra={"ssl_object": tls, "peername": ("192.0.2.1", 5)})
    served.receive(GET)
    assert served.only.ssl_object is tls
    assert served.only.remote_address == ("192.0.2.1", 5)
    assert served.only.transport is served.transport


# --- Expect: 100-continue (RFC 9110 section 10.1.1)

EXPECTING = b"POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_who_waits_for_100_continue_gets_it_when_the_body_is_wanted_and_not_before() -> None:
    served, body = Served(), Body()
    served.receive(EXPECTING)
    assert served.transport.written == b""
    served.only.read_body(body)
    assert served.transport.writes == [CONTINUE]
    served.receive(b"abc" + GET)
    assert (body.data, body.events.count("end")) == (b"abc", 1)
    served.only.answer(200, [], b"ok")
    assert served.transport.written == CONTINUE + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert served.handler.requests[0].bytes_out == len(served.transport.written)
    assert len(served.handler.requests) == 2


async def test_a_refusal_of_who_waits_is_final_and_does_not_wait_for_the_body() -> None:
    served = Served(lambda exchange: exchange.answer(403, [], b"no"))
    served.receive(EXPECTING)
    assert served.transport.writes == [b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"]
    served.receive(b"abc" + GET)
    assert len(served.handler.requests) == 1


@pytest.mark.parametrize(
    "stream",
    [
        EXPECTING + b"abc",
        EXPECTING + b"a",
        EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OLD[:-2] + b"Expect: x\r\n\r\n",
    ],
    ids=["the body comes uninvited", "some of it does", "HTTP/1.0", "HTTP/1.0 and another expectation"],
)
async def test_nobody_is_invited_who_does_not_wait(stream: bytes) -> None:
    served = Served(lambda exchange: exchange.read_body(Body()))
    served.receive(stream)
    assert (len(served.handler.requests), served.transport.written) == (1, b"")


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 0\r\n"])
async def test_without_a_body_there_is_nothing_to_invite(framing: bytes) -> None:
    served = Served(lambda exchange: exchange.read_body(Body()))
    served.receive(GET[:-2] + framing + b"Expect: 100-continue\r\n\r\n")
    assert (len(served.handler.requests), served.transport.written) == (1, b"")


@pytest.mark.parametrize(
    ("request_", "length", "end"),
    [(GET, None, b"0\r\nx-sum: 7\r\n\r\n"), (GET, 3, b"abc"), (OLD, None, b"abc")],
    ids=["chunked", "length", "HTTP/1.0"],
)
async def test_trailers_follow_a_chunked_answer_and_are_dropped_from_any_other(
    request_: bytes, length: int | None, end: bytes
) -> None:
    served = Served()
    served.receive(request_)
    served.only.send_head(*passed(200, length))
    served.only.send_data(b"abc")
    served.only.send_end([(b"x-sum", b"7")])
    served.connections.writes.write_all()
    assert served.transport.written.endswith(end)


@pytest.mark.parametrize("trailer", [(b"content-length", b"1"), (b"x", b"1\r\ny: 2")], ids=["framing", "a line break"])
async def test_a_trailer_that_could_end_a_message_elsewhere_is_never_written(trailer: tuple[bytes, bytes]) -> None:
    served = Served()
    served.receive(GET)
    served.only.send_head(*passed(200, None))
    with pytest.raises(ValueError, match="field"):
        served.only.send_end([trailer])


async def test_a_body_that_was_judged_is_given_to_whoever_takes_it_next() -> None:
    served, body = Served(), Body()
    served.receive(GET)
    served.only.hold_body(b"judged")
    served.only.read_body(body)
    assert (body.data, body.events) == (b"judged", ["data", "end", "flush"])
    served.only.hold_body(b"again")
    assert (served.only.take_whole_body(), served.only.take_whole_body()) == (b"again", None)
