from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from websockets.frames import Close, Frame, Opcode

from delegation_core.errors import Denied, Reason, SidecarError
from sidecar.wire import h1_server, tunnel
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Response
from sidecar.wire.pump import Pump
from sidecar.wire.websocket import MAX_STEPS, Frames, Handshake
from tests.wire.bench import Body, Served
from tests.wire.loopback import WAIT_S, Proxy, Raw, Upstream, proxied
from tests.wire.test_h1_client import Calling, Sink
from tests.wire.test_pump import GET, OK, exchange, held_back
from tests.wire.test_websocket import ACCEPT, ASKS, GRANTS, KEY, NOT_GRANTING
from tests.wire.written import passed

ASKED = (
    b"GET /chat HTTP/1.1\r\nhost: a\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
)
GRANTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: " + ACCEPT + b"\r\nconnection: Upgrade\r\n"
    b"upgrade: websocket\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an end inside a frame as long as a busy machine takes to finish it."""
    monkeypatch.setattr(tunnel, "GOODBYE_S", WAIT_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody."""
    monkeypatch.setattr(tunnel, "GOODBYE_S", 0.05)
    monkeypatch.setattr(tunnel, "_LAST_WORDS_S", 0.05)


def text(content: bytes, *, masked: bool = False) -> bytes:
    return Frame(Opcode.TEXT, content).serialize(mask=masked)


def closing(*, masked: bool = False) -> bytes:
    return Frame(Opcode.CLOSE, Close(1000, "bye").serialize()).serialize(mask=masked)


async def read_frame(raw: Raw) -> Frame:
    """The next frame of a server's (unmasked) or client's (masked), unmasked."""
    first, second = await raw.read_exactly(2)
    size = second & 0x7F
    assert size < 126
    mask = await raw.read_exactly(4) if second & 0x80 else b"\0\0\0\0"
    data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await raw.read_exactly(size)))
    return Frame(Opcode(first & 0x0F), data)


def same_socket(raw: Raw) -> socket.socket:
    """To use it without the event loop."""
    return socket.socket(fileno=os.dup(raw.writer.get_extra_info("socket").fileno()))


async def read_close(raw: Raw) -> Close:
    frame = await read_frame(raw)
    assert frame.opcode is Opcode.CLOSE
    return Close.parse(bytes(frame.data))


@dataclass
class Joined:
    proxy: Proxy
    upstream: Upstream
    caller: Raw
    server: Raw


@asynccontextmanager
async def joined(*, server: ServerLimits | None = None, client: ClientLimits | None = None) -> AsyncIterator[Joined]:
    """A caller and an upstream that have switched."""
    async with proxied(server=server, client=client) as (proxy, upstream, caller):
        await caller.send(ASKS)
        raw = await upstream.accept()
        assert await raw.read_exactly(len(ASKED)) == ASKED
        await raw.send(GRANTS)
        assert await caller.read_exactly(len(GRANTED)) == GRANTED
        yield Joined(proxy, upstream, caller, raw)


# --- the switch


async def test_after_the_upstreams_own_101_bytes_pass_both_ways() -> None:
    async with joined() as both:
        for number in range(3):
            await both.caller.send(text(b"to %d" % number, masked=True))
            assert await read_frame(both.server) == Frame(Opcode.TEXT, b"to %d" % number)
            await both.server.send(text(b"back %d" % number))
            assert await read_frame(both.caller) == Frame(Opcode.TEXT, b"back %d" % number)
        assert [head.status for head in both.proxy.unfinished] == [101]  # told at once, and once


async def test_bytes_before_the_101_go_on_only_after_it() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(ASKS + b"eager")
        server = await upstream.accept()
        assert await server.read_exactly(len(ASKED)) == ASKED
        await caller.send(b" and more")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.reader.read(1), 0.05)
        await server.send(GRANTS + b"first")
        assert await server.read_exactly(14) == b"eager and more"
        assert await caller.read_exactly(len(GRANTED) + 5) == GRANTED + b"first"
        (exchange,) = proxy.exchanges
        assert exchange.bytes_in == len(ASKS) + 14
        assert exchange.bytes_out == len(GRANTED) + 5


@pytest.mark.parametrize("answer", NOT_GRANTING.values(), ids=NOT_GRANTING.keys())
async def test_a_101_that_is_not_the_right_one_is_a_bad_answer_and_opens_nothing(answer: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(ASKS + b"eager")
        server = await upstream.accept()
        await server.read_exactly(len(ASKED))
        await server.send(answer)
        assert (await caller.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await server.read_exactly(1)
        error = await proxy.end()
        assert error is not None
        assert error.reason is Reason.UPSTREAM_BAD_RESPONSE


async def test_a_101_that_nobody_asked_for_is_a_bad_answer() -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(GRANTS)
        assert (await caller.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")


async def test_an_answer_that_is_no_101_passes_as_an_ordinary_one_and_what_was_sent_early_is_no_request() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(ASKS + GET)
        server = await upstream.accept()
        await server.read_exactly(len(ASKED))
        await server.send(OK.replace(b"200 OK", b"403 Forbidden"))
        assert (await caller.read_to_end()).endswith(b"content-length: 2\r\nconnection: close\r\n\r\nok")
        assert await proxy.end() is None
        assert len(proxy.exchanges) == 1
        again = await proxy.call()
        assert await exchange(proxy, server, again) is server  # the upstream's connection is as good as ever
        assert upstream.count == 1
        await again.close()


@pytest.mark.usefixtures("impatient")
async def test_the_upstream_connection_of_a_tunnel_is_never_used_again() -> None:
    async with joined() as both:
        await both.caller.send(closing(masked=True))
        await both.server.read_exactly(len(closing(masked=True)))
        await both.server.send(closing() + OK)
        await both.caller.read_until(closing())
        both.caller.reset()
        await both.proxy.end()
        assert both.proxy.pool.take(both.proxy.origin) is None
        again = await both.proxy.call()
        await exchange(both.proxy, both.upstream, again)
        assert both.upstream.count == 2
        await again.close()


# --- backpressure


async def test_a_caller_that_does_not_read_holds_the_upstream_back() -> None:
    async with joined() as both:
        both.caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held_back(both.server, 64 * 1024 * 1024)


async def test_an_upstream_that_does_not_read_holds_the_caller_back() -> None:
    async with joined() as both:
        both.server.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held_back(both.caller, 64 * 1024 * 1024)


async def test_a_megabyte_passes_both_ways_unchanged() -> None:
    message = text(bytes(range(256)) * 4096, masked=True)
    async with joined() as both:
        sending = asyncio.ensure_future(both.caller.send(message))
        assert await both.server.read_exactly(len(message)) == message
        await sending
        sending = asyncio.ensure_future(both.server.send(message))
        assert await both.caller.read_exactly(len(message)) == message
        await sending


# --- how it ends by itself


async def test_an_end_after_close_frames_is_an_orderly_one() -> None:
    async with joined() as both:
        await both.caller.send(closing(masked=True))
        await both.server.read_exactly(len(closing(masked=True)))
        await both.server.send(closing())
        await both.server.close()
        assert await both.caller.read_to_end() == closing()
        assert await both.proxy.end() is None


async def test_an_end_inside_a_close_frame_is_a_broken_one() -> None:
    async with joined() as both:
        await both.server.send(closing()[:-1])
        await both.server.close()
        assert await both.caller.read_to_end() == closing()[:-1]
        error = await both.proxy.end()
        assert error is not None
        assert error.reason is Reason.UPSTREAM_ABORTED


@pytest.mark.usefixtures("impatient")
async def test_a_caller_that_just_leaves_is_gone_and_what_it_said_arrives() -> None:
    async with joined() as both:
        await both.caller.send(text(b"last", masked=True))
        await both.caller.close()
        both.server.writer.write(text(b"x"))  # nobody listens
        assert await read_frame(both.server) == Frame(Opcode.TEXT, b"last")
        error = await both.proxy.end()
        assert error is not None
        assert error.reason is Reason.PEER_GONE


async def test_an_upstream_that_just_leaves_has_broken_off_and_what_it_said_arrives() -> None:
    async with joined() as both:
        await both.server.send(text(b"last"))
        await both.server.close()
        assert await both.caller.read_to_end() == text(b"last")
        error = await both.proxy.end()
        assert error is not None
        assert error.reason is Reason.UPSTREAM_ABORTED


async def test_what_the_caller_said_in_the_round_in_which_the_upstream_ends_arrives() -> None:
    async with joined() as both:
        last = text(b"last", masked=True) + closing(masked=True)
        with same_socket(both.caller) as caller, same_socket(both.server) as server:
            caller.send(last)  # at once: the loop sees both in its next round
            server.shutdown(socket.SHUT_WR)
        assert await both.server.read_to_end() == last
        assert await both.proxy.end() is None


async def test_an_upstream_that_resets_ends_the_tunnel() -> None:
    async with joined() as both:
        sock = both.server.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        both.server.reset()
        assert await both.caller.read_to_end() == b""
        error = await both.proxy.end()
        assert error is not None
        assert error.reason is Reason.UPSTREAM_ABORTED


async def test_a_caller_that_has_said_everything_still_hears_the_answer() -> None:
    async with joined() as both:
        await both.caller.send(closing(masked=True))
        both.caller.writer.write_eof()
        await both.server.read_exactly(len(closing(masked=True)))
        assert await both.server.read_to_end() == b""  # the upstream learns that, too
        await both.server.send(text(b"late") + closing())
        await both.server.close()
        assert await both.caller.read_to_end() == text(b"late") + closing()
        assert await both.proxy.end() is None


@pytest.mark.usefixtures("impatient")
async def test_who_has_half_closed_is_not_waited_for_forever() -> None:
    async with joined() as both:
        both.caller.writer.write_eof()
        error = await both.proxy.end()
        assert error is not None
        assert error.reason is Reason.PEER_GONE


# --- how we end it


def end(both: Joined) -> None:
    both.proxy.pumps[-1].end(Denied(Reason.TOKEN_EXPIRED))


async def reason_of_end(both: Joined) -> Reason:
    error = await both.proxy.end()
    assert error is not None
    return error.reason


async def test_both_ends_are_told_by_a_close_frame_and_hung_up() -> None:
    async with joined() as both:
        end(both)
        assert await read_close(both.caller) == Close(1001, "token_expired")
        assert await read_close(both.server) == Close(1001, "token_expired")
        assert await both.server.read_to_end() == b""
        await both.caller.send(closing(masked=True))  # the reply is taken, not answered by a reset
        assert await both.caller.read_to_end() == b""
        assert await reason_of_end(both) is Reason.TOKEN_EXPIRED


async def test_nothing_passes_after_our_close_frame() -> None:
    async with joined() as both:
        await both.server.send(text(b"a" * 100)[:50])
        await both.caller.read_exactly(50)
        end(both)
        assert await read_close(both.server) == Close(1001, "token_expired")
        await both.caller.send(text(b"too late", masked=True))
        await both.server.send(text(b"a" * 100)[50:])
        await both.caller.read_exactly(52)
        assert await read_close(both.caller) == Close(1001, "token_expired")
        assert await both.server.read_to_end() == b""


async def test_inside_a_frame_its_end_is_waited_for() -> None:
    up, down = text(b"u" * 100, masked=True), text(b"d" * 100)
    async with joined() as both:
        await both.caller.send(up[:30])
        await both.server.send(down[:30])
        await both.server.read_exactly(30)
        await both.caller.read_exactly(30)
        end(both)
        await both.caller.send(up[30:] + text(b"next", masked=True))
        await both.server.send(down[30:] + text(b"next"))
        assert await both.server.read_exactly(len(up) - 30) == up[30:]
        assert await read_close(both.server) == Close(1001, "token_expired")
        assert await both.caller.read_exactly(len(down) - 30) == down[30:]
        assert await read_close(both.caller) == Close(1001, "token_expired")
        assert await reason_of_end(both) is Reason.TOKEN_EXPIRED


@pytest.mark.usefixtures("impatient")
async def test_inside_a_frame_that_does_not_end_the_connection_is_cut() -> None:
    async with joined() as both:
        await both.server.send(text(b"d" * 100)[:30])
        await both.caller.read_exactly(30)
        end(both)
        assert await both.caller.read_to_end() == b""
        assert await read_close(both.server) == Close(1001, "token_expired")
        assert await reason_of_end(both) is Reason.TOKEN_EXPIRED


async def test_who_has_closed_already_is_not_told_again() -> None:
    async with joined() as both:
        await both.server.send(closing())
        await both.caller.read_exactly(len(closing()))
        end(both)
        assert await both.caller.read_to_end() == b""
        assert await read_close(both.server) == Close(1001, "token_expired")


async def test_a_cut_tells_whom_it_can() -> None:
    async with joined() as both:
        await both.server.send(text(b"d" * 100)[:30])
        await both.caller.read_exactly(30)
        both.proxy.pumps[-1].cut(Denied(Reason.DRAINING))
        assert await read_close(both.server) == Close(1001, "")
        assert await both.caller.read_to_end() == b""
        assert await reason_of_end(both) is Reason.DRAINING


@pytest.mark.parametrize("how", ["end", "cut"])
async def test_nobody_is_told_whose_direction_the_caller_has_ended(how: str) -> None:
    async with joined() as both:
        both.caller.writer.write_eof()
        assert await both.server.read_to_end() == b""
        getattr(both.proxy.pumps[-1], how)(Denied(Reason.DRAINING))
        assert (await read_close(both.caller)).code == 1001
        assert await both.caller.read_to_end() == b""
        assert await reason_of_end(both) is Reason.DRAINING


async def test_a_tunnel_in_which_nobody_speaks_ends() -> None:
    async with joined(client=ClientLimits(stream_idle_timeout_s=0.1, idle_timeout_s=0.01)) as both:
        assert await read_close(both.caller) == Close(1001, "timeout")
        assert await read_close(both.server) == Close(1001, "timeout")
        assert await reason_of_end(both) is Reason.TIMEOUT


async def test_a_caller_that_takes_nothing_is_cut() -> None:
    async with joined(client=ClientLimits(stream_idle_timeout_s=0.2)) as both:
        both.caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = both.proxy.connections
        async with asyncio.timeout(WAIT_S):
            while not connection.writing_paused:
                both.server.writer.write(b"a" * 65536)
                await asyncio.sleep(0)
        both.server.writer.write(bytes(32 * 1024 * 1024))  # more than the kernels between may still find room for
        assert await reason_of_end(both) is Reason.PEER_SLOW


class Raws(Sink):
    """Takes raw bytes, and notes a silence."""

    def on_silence(self) -> None:
        self.events.append("silence")


@pytest.mark.parametrize(("seconds", "told"), [(9.9, False), (10.1, True)])
async def test_a_tunnel_has_its_own_longest_silence(seconds: float, told: bool) -> None:
    calling, sink = Calling(idle_timeout_s=1, first_byte_timeout_s=1, stream_idle_timeout_s=10), Raws()
    calling.connection.ask("GET", b"/", b"", sink, Handshake(KEY, frozenset()))
    calling.receive(GRANTS)
    calling.connection.switch_protocols(sink)
    calling.after(5)
    calling.connection.send_body(b"one way counts for both")
    calling.connection.flush()
    calling.after(seconds)
    assert ("silence" in sink.events) == told
    assert not calling.transport.closed


async def test_raw_bytes_that_do_not_come_are_no_body_that_is_late() -> None:
    served, body = Served(body_timeout_s=1), Body()
    served.receive(ASKS)
    (asking,) = served.handler.requests
    asking.switch_protocols(*passed(101, None))
    asking.read_body(body)
    served.after(100)
    served.receive(b"raw")
    assert (body.data, body.reasons, served.transport.closed) == (b"raw", [], False)


async def test_an_ended_tunnel_is_let_go_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with joined() as both:
            (connection,) = both.proxy.pool.connections
            held = weakref.ref(connection)
            del connection
            end(both)
            await both.server.read_to_end()
            await both.server.close()
            await both.caller.read_to_end()
            assert await reason_of_end(both) is Reason.TOKEN_EXPIRED
            both.proxy.pumps.clear()
            both.proxy.exchanges.clear()
            async with asyncio.timeout(WAIT_S):
                while held() is not None:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()


# --- many tiny frames

MANY = 20_000
EMPTY, EMPTY_MASKED = b"\x82\x00", b"\x82\x80abcd"


class InMemory:
    """A tunnel between two recording transports. ``ends``: how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.ends: list[SidecarError | None] = []
        self.served = Served()
        self.served.receive(ASKS)
        self.calling = Calling()
        self.calling.connection.ask("GET", b"/", b"", self._Switching(self), Handshake(KEY, frozenset()))
        self.calling.receive(GRANTS)
        self.caller, self.upstream = self.served.transport, self.calling.transport
        self.caller.writes.clear()
        self.upstream.writes.clear()
        whole = Frames._step

        def counted(frames: Frames, data: bytes, at: int) -> int:
            self.steps += 1
            return whole(frames, data, at)

        monkeypatch.setattr(Frames, "_step", counted)

    class _Switching(Sink):
        def __init__(self, both: InMemory) -> None:
            super().__init__()
            self.both = both

        def on_response(self, head: Response, data: bytes) -> None:
            exchange = self.both.served.only
            exchange.switch_protocols(*passed(101, None))
            self.both.tunnel = tunnel.Tunnel(exchange, self.both.calling.connection, finished=self.both.ends.append)
            self.both.tunnel.open()
            exchange.flush()

    tunnel: tunnel.Tunnel

    def say(self, end: str, data: bytes) -> None:
        """One read of what this end says."""
        (self.served if end == "caller" else self.calling).receive(data)

    def heard(self, end: str) -> bytes:
        """Return the bytes that the other end has received."""
        return (self.upstream if end == "caller" else self.caller).written

    def reads(self, end: str) -> bool:
        return (self.caller if end == "caller" else self.upstream).reading

    async def turns(self) -> None:
        await self.served.turns()
        await self.calling.turns()


ENDS_OF_IT = pytest.mark.parametrize(("end", "empty"), [("caller", EMPTY_MASKED), ("upstream", EMPTY)])


@ENDS_OF_IT
async def test_many_frames_pass_at_once_and_are_followed_some_at_a_time_as_the_loop_goes_on(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    both.say(end, empty * MANY)
    assert both.heard(end) == empty * MANY
    turns = 1
    while not both.reads(end):
        assert both.steps == turns * MAX_STEPS
        await asyncio.sleep(0)
        turns += 1
    assert both.steps == MANY * (2 if end == "caller" else 1)  # a masked head is looked at twice
    both.say(end, empty)
    assert both.heard(end) == empty * (MANY + 1)
    assert both.reads(end)


@ENDS_OF_IT
async def test_few_frames_at_a_time_hold_nobody_back(end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    both = InMemory(monkeypatch)
    for _ in range(10):
        both.say(end, empty * (MAX_STEPS // 2))
        assert both.reads(end)


@ENDS_OF_IT
async def test_bytes_that_come_while_frames_are_followed_pass_and_stay_in_order(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    both.say(end, empty * MANY)
    last = closing(masked=end == "caller")
    both.say(end, empty[:1])
    both.say(end, empty[1:] + last)
    await both.turns()
    assert both.heard(end) == empty * (MANY + 1) + last
    assert both.reads(end)


@ENDS_OF_IT
async def test_who_is_followed_is_read_on_only_if_the_other_end_takes_it(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    other = both.calling.connection if end == "caller" else both.served.connection
    both.say(end, empty * MANY)
    other.pause_writing()
    await both.turns()
    assert not both.reads(end)
    other.resume_writing()
    assert both.reads(end)
    both.say(end, empty * MANY)
    other.pause_writing()
    other.resume_writing()
    assert not both.reads(end)
    await both.turns()
    assert both.reads(end)


LEAVING = {
    "caller": lambda both: both.served.lose(),
    "upstream": lambda both: both.calling.lose(),
    "upstream ends": lambda both: both.calling.connection.eof_received(),
}


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("speaks", ["caller", "upstream"])
@pytest.mark.parametrize("leaves", LEAVING)
async def test_how_a_tunnel_ended_is_told_when_all_frames_are_followed(
    leaves: str, speaks: str, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    said = (EMPTY_MASKED if speaks == "caller" else EMPTY) * MANY
    said += closing(masked=speaks == "caller") if closes else b""
    both.say(speaks, said)
    LEAVING[leaves](both)
    assert both.heard(speaks) == said
    assert both.ends == []
    await both.turns()
    (told,) = both.ends
    assert (told is None) == closes
    assert len(both.served.connections.turns) == len(both.calling.connections.turns) == 0


@ENDS_OF_IT
async def test_who_leaves_is_not_kept_by_an_end_that_goes_on_speaking(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    other = "upstream" if end == "caller" else "caller"
    both.say(end, empty * MANY)
    LEAVING[end](both)
    both.tunnel.on_upstream_resume()
    both.tunnel.on_caller_resume()
    assert not both.reads(other)
    await both.turns()
    assert len(both.ends) == 1


@ENDS_OF_IT
async def test_a_tunnel_that_has_ended_is_not_ended_again_while_it_is_followed(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    both.say(end, empty * MANY + closing(masked=end == "caller"))
    LEAVING[end](both)
    both.tunnel.end(Denied(Reason.TOKEN_EXPIRED))
    await both.turns()
    assert both.ends == [None]


@ENDS_OF_IT
async def test_our_goodbye_waits_until_it_is_known_where_a_frame_ends(
    end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = InMemory(monkeypatch)
    part = text(b"unfinished")[:5] if end == "upstream" else b""
    both.say(end, empty * MANY + part)
    both.tunnel.end(Denied(Reason.TOKEN_EXPIRED))
    assert both.heard(end) == empty * MANY + part
    await both.turns()
    if part:
        assert both.heard(end) == empty * MANY + part
        both.say(end, text(b"unfinished")[5:] + text(b"next"))
    heard = both.heard(end)[len(empty * MANY) :]
    assert heard.startswith(text(b"unfinished") + b"\x88" if part else b"\x88")
    assert [error and error.reason for error in both.ends] == [Reason.TOKEN_EXPIRED]


@ENDS_OF_IT
async def test_a_cut_does_not_wait(end: str, empty: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    both = InMemory(monkeypatch)
    both.say(end, empty * MANY)
    steps = both.steps
    both.tunnel.cut()
    assert both.heard(end) == empty * MANY  # nobody knows whether a Close frame could be read here
    assert both.heard("upstream" if end == "caller" else "caller").startswith(b"\x88")
    await both.turns()
    assert both.steps == steps
    assert both.ends == []


@pytest.mark.parametrize(("over", "gone"), [(False, False), (True, True)])
async def test_a_peer_that_leaves_while_it_is_followed_is_heard_to_its_end(
    over: bool, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h1_server, "has_left", lambda _transport: True)
    both = InMemory(monkeypatch)
    both.served.connection._half_closes = False  # as over TLS
    both.say("caller", EMPTY_MASKED * MANY)
    if over:
        both.calling.connection.pause_writing()
        await both.turns()
    both.served.after(1)
    assert both.served.only.gone == gone


async def test_tiny_frames_pass_both_ways_unchanged() -> None:
    up = b"".join(text(b"%d" % number, masked=True) for number in range(MANY))
    down = b"".join(text(b"%d" % number) for number in range(MANY))
    async with joined() as both:
        await asyncio.gather(both.caller.send(up), both.server.send(down))
        assert await both.server.read_exactly(len(up)) == up
        assert await both.caller.read_exactly(len(down)) == down
        end(both)
        assert await read_close(both.server) == Close(1001, "token_expired")
        assert await read_close(both.caller) == Close(1001, "token_expired")


# --- event streams


POST = b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n"


@pytest.mark.parametrize("by", [Pump.end, Pump.cut])
@pytest.mark.parametrize(
    ("request_bytes", "answer", "whole"),
    [
        (GET, EVENTS, True),
        (POST, EVENTS, False),
        (GET, EVENTS.replace(b"text/event-stream", b"text/plain"), False),
    ],
)
async def test_an_event_stream_by_get_ends_well_formed_and_any_other_answer_truncated(
    request_bytes: bytes, answer: bytes, whole: bool, by: Callable[[Pump, SidecarError], None]
) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(request_bytes)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(answer)
        await caller.read_until(b"data: \r\n")
        by(proxy.pumps[-1], Denied(Reason.TOKEN_EXPIRED))
        if whole:
            assert await caller.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
            assert await proxy.end() is not None
            await exchange(proxy, upstream, caller)
        else:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await caller.read_until(b"0\r\n\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await server.read_exactly(1)


@pytest.mark.parametrize(("kind", "reasons"), [(b"text/event-stream", []), (b"text/plain", [Reason.UPSTREAM_TIMEOUT])])
async def test_an_event_stream_may_be_silent_for_longer_than_an_answer(kind: bytes, reasons: list[Reason]) -> None:
    calling = Calling(idle_timeout_s=1, stream_idle_timeout_s=10)
    sink = calling.ask()
    calling.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: " + kind + b"\r\n\r\n")
    calling.after(9)
    assert sink.reasons == reasons
    calling.after(2)
    assert sink.reasons == [Reason.UPSTREAM_TIMEOUT]


# --- one direction by itself

GOODBYE = b"goodbye"
WHOLE = text(b"0123456789")


def test_at_the_end_of_a_frame_the_goodbye_is_said_once_and_nothing_after_it() -> None:
    lane = tunnel._Lane()
    assert lane.take(WHOLE) == WHOLE
    assert (lane.end(GOODBYE), lane.over) == (GOODBYE, True)
    assert (lane.end(GOODBYE), lane.take(WHOLE)) == (b"", b"")


def test_inside_a_frame_the_goodbye_waits_for_its_last_byte() -> None:
    lane = tunnel._Lane()
    assert lane.take(WHOLE[:4]) == WHOLE[:4]
    assert (lane.end(GOODBYE), lane.over) == (b"", False)
    assert (lane.take(WHOLE[4:8]), lane.over) == (WHOLE[4:8], False)
    assert (lane.take(WHOLE[8:] + WHOLE), lane.over) == (WHOLE[8:] + GOODBYE, True)


def test_one_that_has_closed_is_not_told_goodbye() -> None:
    lane = tunnel._Lane()
    assert lane.take(closing()) == closing()
    assert lane.closed
    assert (lane.end(GOODBYE), lane.over) == (b"", True)


def test_a_part_of_a_close_frame_closes_nothing() -> None:
    lane = tunnel._Lane()
    closed = []
    for part in (closing()[:-1], closing()[-1:]):
        lane.take(part)
        closed.append(lane.closed)
    assert closed == [False, True]


def test_bytes_that_are_not_parsed_yet_stay_in_order_before_a_goodbye() -> None:
    lane, empty = tunnel._Lane(), text(b"")
    many = empty * (MAX_STEPS + 1)
    assert lane.take(many) == many
    assert lane.take(WHOLE[:4]) == WHOLE[:4]
    assert lane.end(GOODBYE) == b""
    while lane.behind:
        assert lane.catch_up() == b""
    assert (lane.take(WHOLE[4:] + WHOLE), lane.over) == (WHOLE[4:] + GOODBYE, True)


def test_a_goodbye_is_said_when_all_is_parsed_and_a_frame_has_ended() -> None:
    lane = tunnel._Lane()
    lane.take(text(b"") * (MAX_STEPS + 1))
    assert lane.end(GOODBYE) == b""
    said = b""
    while lane.behind:
        said += lane.catch_up()
    assert (said, lane.over) == (GOODBYE, True)


# --- both directions, without connections


class End:
    """Records what a tunnel does with one of its connections."""

    sender: object = None
    writing_paused = False

    def __init__(self) -> None:
        self.sent = b""
        self.reading = True
        self.over = False

    def send(self, data: bytes) -> None:
        self.sent += data

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def leave(self) -> None:
        self.over = True

    def switch_protocols(self, _sink: object) -> End:
        return self

    def ignore(self, *_arguments: object) -> None:
        pass

    send_data = send_body = send
    pause_body = pause_reading = pause
    resume_body = resume_reading = resume
    send_end = leave
    flush = read_body = let_others_first = ignore


class Bare:
    """A tunnel between two ends."""

    def __init__(self) -> None:
        self.caller, self.upstream = End(), End()
        self.finished: list[SidecarError | None] = []
        self.tunnel = tunnel.Tunnel(self.caller, self.upstream, finished=self.finished.append)  # type: ignore[arg-type]
        self.tunnel.open()


FIRST, SECOND = Denied(Reason.POLICY_DENIED), Denied(Reason.TIMEOUT)


async def test_the_first_reason_for_an_end_counts_and_a_second_one_gives_no_more_time() -> None:
    bare = Bare()
    bare.tunnel.on_response_data(WHOLE[:4])
    bare.tunnel.end(FIRST)
    timer = bare.tunnel._timer
    bare.tunnel.end(SECOND)
    assert bare.tunnel._timer is timer is not None
    assert bare.finished == []
    bare.tunnel.on_response_data(WHOLE[4:])
    bare.tunnel.on_response_flush()
    assert bare.finished == [FIRST]
    assert timer.cancelled()
    assert bare.caller.over
    assert bare.upstream.over


@pytest.mark.parametrize("end", ["end", "cut", "gone"])
async def test_after_its_end_a_tunnel_says_nothing_more(end: str) -> None:
    bare = Bare()
    bare.tunnel.on_response_error(FIRST)
    assert bare.finished == [FIRST]
    {
        "end": lambda: bare.tunnel.end(SECOND),
        "cut": bare.tunnel.cut,
        "gone": bare.tunnel.on_caller_gone,
    }[end]()
    assert bare.finished == [FIRST]
    assert (bare.caller.sent, bare.upstream.sent, bare.tunnel._timer) == (b"", b"", None)


async def test_an_end_that_takes_nothing_holds_back_the_other() -> None:
    bare = Bare()
    bare.tunnel.on_caller_pause()
    assert (bare.caller.reading, bare.upstream.reading) == (True, False)
    bare.tunnel.on_caller_resume()
    bare.tunnel.on_upstream_pause()
    assert (bare.caller.reading, bare.upstream.reading) == (False, True)
    bare.tunnel.on_upstream_resume()
    assert (bare.caller.reading, bare.upstream.reading) == (True, True)


async def test_nothing_more_is_read_from_an_end_whose_frames_are_not_parsed_yet() -> None:
    bare, many = Bare(), text(b"") * (MAX_STEPS + 1)
    bare.tunnel.on_body(many)
    bare.tunnel.on_response_data(many)
    assert (bare.upstream.sent, bare.caller.sent) == (many, many)
    assert (bare.caller.reading, bare.upstream.reading) == (False, False)
    bare.tunnel.on_caller_resume()
    bare.tunnel.on_upstream_resume()
    assert (bare.caller.reading, bare.upstream.reading) == (False, False)
