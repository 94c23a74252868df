from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from contextlib import suppress
from typing import Any, cast

import pytest

from delegation_core.errors import Reason, SidecarError, Unavailable
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_client import ClientConnection
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.message import Edits, Response
from sidecar.wire.pool import UpstreamPool
from sidecar.wire.pump import Pump
from tests.wire.bench import Served
from tests.wire.loopback import WAIT_S, Proxy, Raw, Upstream, proxied
from tests.wire.test_h1_client import Calling
from tests.wire.written import AS_THEY_ARE, end_to_end

GET = b"GET /a?b HTTP/1.1\r\nHost: b\r\nX-A: 1\r\n\r\n"
GET_SENT = b"GET /a?b HTTP/1.1\r\nhost: b\r\nx-a: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_SENT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: b\r\n" + fields + b"\r\n" + body


async def exchange(
    proxy: Proxy, upstream: Upstream | Raw, caller: Raw, request: bytes = GET, sent: bytes = GET_SENT
) -> Raw:
    """One whole lawful request; the upstream's end of its connection."""
    await caller.send(request)
    server = await upstream.accept() if isinstance(upstream, Upstream) else upstream
    assert await server.read_exactly(len(sent)) == sent
    await server.send(OK)
    assert await caller.read_exactly(len(OK_SENT)) == OK_SENT
    assert await proxy.end() is None
    return server


# --- the lawful way


async def test_a_request_and_its_answer_pass_and_both_connections_are_kept() -> None:
    async with proxied() as (proxy, upstream, caller):
        server = await exchange(proxy, upstream, caller)
        await exchange(proxy, server, caller)
        assert upstream.count == 1


async def test_a_warm_request_costs_two_reads_two_writes_and_no_task() -> None:
    async with proxied() as (proxy, upstream, caller):
        server = await exchange(proxy, upstream, caller)
        (kept,) = proxy.pool.connections
        assert isinstance(kept, ClientConnection)
        reads: list[int] = []
        writes: list[int] = []
        tasks: set[int] = set()
        received, transport = kept.data_received, kept.transport

        def counted_read(data: bytes) -> None:
            reads.append(len(data))
            received(data)
            tasks.add(len(asyncio.all_tasks()))

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                tasks.add(len(asyncio.all_tasks()))
                transport.write(data)

            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

        transport.set_protocol(_Forwarding(kept, counted_read))
        kept.transport = Counting()  # type: ignore[assignment]
        proxy.counts.clear()
        before = len(asyncio.all_tasks())
        for _ in range(20):
            await exchange(proxy, server, caller)
        await exchange(proxy, server, caller, *PASSED["length"])
        assert proxy.counts == {"server reads": 21, "server writes": 21}
        assert (len(reads), len(writes)) == (21, 21)
        assert tasks == {before}


class _Forwarding(asyncio.Protocol):
    """A protocol in front of another, whose reads are seen."""

    def __init__(self, inner: asyncio.Protocol, read: object) -> None:
        self.data_received = read  # type: ignore[assignment, method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]


PASSED = {
    "length": (
        post(b"Content-Length: 3\r\n", b"abc"),
        b"POST /a HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc",
    ),
    "chunked, extensions and trailers dropped": (
        post(b"Transfer-Encoding: chunked\r\nTrailer: X\r\n", b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n"),
        b"POST /a HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "no content": (post(b"Content-Length: 0\r\n"), b"POST /a HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n"),
    "hop-by-hop fields": (
        b"GET / HTTP/1.1\r\nHost: b\r\nConnection: x-a, te\r\nX-A: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-B: 2\r\n"
        b"Proxy-Authorization: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: b\r\nx-b: 2\r\n\r\n",
    ),
    "an HTTP/1.0 request goes on as HTTP/1.1": (
        b"GET / HTTP/1.0\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: b\r\n\r\n",
    ),
}


ENDS = {
    "whole": ([OK], 0),
    "whole, chunked": ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], 0),
    "without content": ([b"HTTP/1.1 204 No Content\r\n\r\n"], 0),
    "half a head": ([OK[:20], OK[20:]], 0),
    "the content later": ([OK[:-2], b"o", b"k"], 1),
    "the last chunk later": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n", b"\r\n"],
        1,
    ),
    "an interim answer first": ([b"HTTP/1.1 103 Early Hints\r\n\r\n", OK], 0),
}


@pytest.mark.parametrize(("pieces", "times"), ENDS.values(), ids=ENDS.keys())
async def test_an_answer_that_does_not_end_at_once_is_told_once(pieces: list[bytes], times: int) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_exactly(len(GET_SENT))
        (kept,) = proxy.pool.connections
        assert isinstance(kept, ClientConnection)
        for piece in pieces:  # straight to the connection: on the wire two pieces could become one
            kept.data_received(piece)
        assert await proxy.end() is None
        assert [head.status for head in proxy.unfinished] == [200] * times


@pytest.mark.parametrize(("request_bytes", "sent"), PASSED.values(), ids=PASSED.keys())
async def test_requests_are_written_anew(request_bytes: bytes, sent: bytes) -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(request_bytes)
        server = await upstream.accept()
        assert await server.read_exactly(len(sent)) == sent


ANSWERED = {
    "chunked": (
        GET,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nok\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    "interim answers dropped": (GET, b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" + OK, OK_SENT),
    "hop-by-hop fields dropped": (
        GET,
        b"HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-b: 2\r\ncontent-length: 0\r\n\r\n",
    ),
    "content encoding untouched": (
        GET,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
    ),
    "redirect": (
        GET,
        b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://evil/\r\ncontent-length: 0\r\n\r\n",
    ),
    "HEAD": (
        GET.replace(b"GET", b"HEAD"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    ),
    "204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": (
        GET,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
    ),
    "chunked to HTTP/1.0": (
        GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
    ),
}


@pytest.mark.parametrize(("request_bytes", "answer", "sent"), ANSWERED.values(), ids=ANSWERED.keys())
async def test_answers_are_written_anew(request_bytes: bytes, answer: bytes, sent: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(request_bytes)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(answer)
        assert await caller.read_exactly(len(sent)) == sent
        assert await proxy.end() is None
        without_content = request_bytes.startswith(b"HEAD") or sent.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
        if not without_content and b"connection: close" not in sent:
            await exchange(proxy, server, caller)


@pytest.mark.parametrize("name", ["HEAD", "304"])
async def test_a_body_where_none_may_be_answers_nobody_else(name: str) -> None:
    request, answer, sent = ANSWERED[name]
    async with proxied() as (proxy, upstream, caller):
        await caller.send(request)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(answer)
        assert await caller.read_exactly(len(sent)) == sent
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        assert await proxy.end() is None
        await exchange(proxy, upstream, caller)
        assert upstream.count == 2


async def test_an_answer_that_ends_with_its_connection_becomes_chunked() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(b"HTTP/1.0 200 OK\r\n\r\nok")
        await server.close()
        assert (await caller.read_until(b"0\r\n\r\n")).endswith(
            b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        assert await proxy.end() is None
        await exchange(proxy, upstream, caller)


async def test_events_of_a_stream_pass_at_once() -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        await caller.read_until(b"\r\n\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            await server.send(b"%x\r\n%b\r\n" % (len(event), event))
            chunk = b"%x\r\n%b\r\n" % (len(event), event)
            assert await caller.read_exactly(len(chunk)) == chunk


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_large_bodies_pass_both_ways_unchanged(framing: str) -> None:
    piece = bytes(range(256)) * 256
    pieces = 64
    expected = hashlib.sha256(piece * pieces).digest()

    async def send(raw: Raw, first_line: bytes) -> None:
        if framing == "length":
            await raw.send(first_line + b"Content-Length: %d\r\n\r\n" % (len(piece) * pieces))
        else:
            await raw.send(first_line + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(pieces):
            await raw.send(piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece))
        if framing == "chunked":
            await raw.send(b"0\r\n\r\n")

    async def receive(raw: Raw) -> bytes:
        head = await raw.read_until(b"\r\n\r\n")
        digest = hashlib.sha256()
        if b"chunked" not in head:
            digest.update(await raw.read_exactly(len(piece) * pieces))
            return digest.digest()
        while size := int((await raw.read_until(b"\r\n"))[:-2], 16):
            digest.update((await raw.read_exactly(size + 2))[:-2])
        await raw.read_exactly(2)
        return digest.digest()

    async with proxied() as (proxy, upstream, caller):
        sending = asyncio.ensure_future(send(caller, b"POST / HTTP/1.1\r\nHost: b\r\n"))
        server = await upstream.accept()
        assert await receive(server) == expected
        await sending
        answering = asyncio.ensure_future(send(server, b"HTTP/1.1 200 OK\r\n"))
        assert await receive(caller) == expected
        await answering
        assert await proxy.end() is None


async def held_back(raw: Raw, limit: int) -> int:
    """Return how much a sender can send while nobody reads at the other end; fails past ``limit``."""
    sent = 0
    piece = b"a" * 65536
    try:
        while sent < limit:
            raw.writer.write(piece)
            async with asyncio.timeout(0.3):
                await raw.writer.drain()
            sent += len(piece)
    except TimeoutError:
        return sent
    raise AssertionError("nothing holds the sender back")


@pytest.mark.parametrize("end", ["kept", "closed at once"])
async def test_bodies_of_tiny_chunks_pass_both_ways_unchanged(end: str) -> None:
    content = bytes(number % 251 for number in range(40_000))
    chunked = b"".join(b"1\r\n%c\r\n" % one for one in content) + b"0\r\n\r\n"
    async with proxied() as (proxy, upstream, caller):
        sending = asyncio.ensure_future(caller.send(post(b"Transfer-Encoding: chunked\r\n", chunked)))
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        assert await read_chunks(server) == content
        await sending
        await server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked)
        if end == "closed at once":
            await server.close()
        await caller.read_until(b"\r\n\r\n")
        assert await read_chunks(caller) == content
        assert await proxy.end() is None
        await caller.send(GET)  # both connections are as good as ever, or a new one is opened
        server = server if end == "kept" else await upstream.accept()
        assert await server.read_exactly(len(GET_SENT)) == GET_SENT


async def read_chunks(raw: Raw) -> bytes:
    """A chunked body to its end."""
    content = b""
    while size := int(await raw.read_until(b"\r\n"), 16):
        content += (await raw.read_exactly(size + 2))[:-2]
    assert await raw.read_exactly(2) == b"\r\n"
    return content


async def test_a_caller_that_does_not_read_holds_the_upstream_back() -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held_back(server, 64 * 1024 * 1024)


async def test_an_upstream_that_does_not_read_holds_the_caller_back() -> None:
    async with proxied(server=ServerLimits(max_body_bytes=2**40)) as (_, upstream, caller):
        await caller.send(post(b"Content-Length: 1000000000\r\n"))
        server = await upstream.accept()
        server.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held_back(caller, 64 * 1024 * 1024)


# --- what goes wrong at the upstream


BAD_ANSWERS = {
    "no HTTP": b"SSH-2.0-x\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unasked switch": b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000,
    "endless interim answers": b"HTTP/1.1 100 C\r\n\r\n" * 9,
    "broken chunk in the first read": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_bad_answer_is_502_and_the_caller_can_go_on(answer: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(answer)
        assert (await caller.read_until(b"upstream_bad_response")).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.UPSTREAM_BAD_RESPONSE
        await exchange(proxy, upstream, caller)


CUT_ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
}


@pytest.mark.parametrize("how", ["end of file", "reset"])
@pytest.mark.parametrize("answer", CUT_ANSWERS.values(), ids=CUT_ANSWERS.keys())
async def test_a_truncated_answer_looks_truncated(answer: bytes, how: str) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(answer)
        assert (await caller.read_until(b"abc")).startswith(b"HTTP/1.1 200 OK\r\n")
        if how == "reset":
            server.reset()
        else:
            await server.close()
        assert await caller.read_to_end() in (b"", b"\r\n")
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.UPSTREAM_ABORTED


async def test_a_truncated_answer_without_length_is_reset() -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(CUT_ANSWERS["chunked"])
        await caller.read_until(b"abc")
        await server.close()
        with pytest.raises(ConnectionResetError):
            await caller.read_to_end()


@pytest.mark.parametrize("surplus", [b"H", OK])
async def test_bytes_beyond_an_answer_never_reach_another_caller(surplus: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(OK + surplus)
        assert await caller.read_exactly(len(OK_SENT)) == OK_SENT
        assert await proxy.end() is None
        await exchange(proxy, upstream, caller)
        assert upstream.count == 2


async def test_late_bytes_on_an_idle_connection_never_reach_another_caller() -> None:
    async with proxied() as (proxy, upstream, caller):
        server = await exchange(proxy, upstream, caller)
        await server.send(OK)
        assert await server.read_to_end() == b""
        await exchange(proxy, upstream, caller)
        assert upstream.count == 2


async def test_an_upstream_that_closes_a_fresh_connection_is_unreachable_and_not_asked_again() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.close()
        assert (await caller.read_until(b"upstream_unreachable")).startswith(b"HTTP/1.1 503 ")
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.UPSTREAM_UNREACHABLE
        assert (upstream.count, proxy.pumps[0].retried) == (1, False)


async def make_stale(proxy: Proxy, upstream: Upstream, caller: Raw, request: bytes) -> None:
    """The kept connection takes a request and is then closed without one byte of an answer."""
    server = await exchange(proxy, upstream, caller)
    await caller.send(request)
    await server.read_until(b"\r\n\r\n")
    server.reset()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
async def test_a_stale_connection_is_replaced_once_where_repeating_is_safe(method: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await make_stale(proxy, upstream, caller, method + b" / HTTP/1.1\r\nHost: b\r\n\r\n")
        server = await upstream.accept()
        assert (await server.read_until(b"\r\n\r\n")).startswith(method + b" / HTTP/1.1\r\n")
        await server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await caller.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        assert await proxy.end() is None
        assert proxy.pumps[-1].retried


async def test_a_stale_connection_is_replaced_only_once() -> None:
    async with proxied() as (proxy, upstream, caller):
        await make_stale(proxy, upstream, caller, GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        server.reset()
        assert (await caller.read_until(b"upstream_unreachable")).startswith(b"HTTP/1.1 503 ")
        assert upstream.count == 2


async def test_what_is_repeated_goes_out_on_no_other_kept_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxied() as (proxy, upstream, caller):
        wanted: list[bool] = []
        connect = proxy.pool.connect

        def spied(*arguments: Any, fresh: bool = False) -> Any:
            wanted.append(fresh)
            return connect(*arguments, fresh=fresh)

        monkeypatch.setattr(proxy.pool, "connect", spied)
        await make_stale(proxy, upstream, caller, GET)
        await (await upstream.accept()).read_until(b"\r\n\r\n")
        assert wanted == [False, True]


UNSAFE = {
    "POST": post(b"Content-Length: 0\r\n"),
    "PATCH": b"PATCH / HTTP/1.1\r\nHost: b\r\n\r\n",
    "PUT with content": b"PUT / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc",
    "PUT with announced content": b"PUT / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", UNSAFE.values(), ids=UNSAFE.keys())
async def test_what_may_have_had_an_effect_is_never_repeated(request_bytes: bytes) -> None:
    async with proxied() as (proxy, upstream, caller):
        await make_stale(proxy, upstream, caller, request_bytes)
        assert (await caller.read_until(b"upstream_unreachable")).startswith(b"HTTP/1.1 503 ")
        assert upstream.count == 1


async def test_one_byte_of_an_answer_forbids_repeating() -> None:
    async with proxied() as (proxy, upstream, caller):
        server = await exchange(proxy, upstream, caller)
        await caller.send(GET)
        await server.read_until(b"\r\n\r\n")
        await server.send(b"H")
        await server.close()
        assert (await caller.read_until(b"upstream_bad_response")).startswith(b"HTTP/1.1 502 ")
        assert upstream.count == 1


async def test_a_silent_upstream_is_504() -> None:
    async with proxied(client=ClientLimits(first_byte_timeout_s=0.01)) as (_, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        assert (await caller.read_until(b"upstream_timeout")).startswith(b"HTTP/1.1 504 ")
        assert await server.read_to_end() == GET_SENT


# --- early answers and broken requests


async def test_an_answer_before_the_body_reaches_the_caller_who_still_sends() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(post(b"Content-Length: 1000000\r\n", b"a" * 1000))
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        head = await caller.read_until(b"\r\n\r\n")
        assert b"connection: close\r\n" in head
        assert await proxy.end() is None
        for _ in range(10):
            await caller.send(b"a" * 65536)
        assert await caller.read_to_end() == b"no"
        with suppress(ConnectionError):
            await server.read_to_end()


async def test_a_broken_body_is_never_complete_for_the_upstream() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        server = await upstream.accept()
        assert (await server.read_until(b"\r\n\r\n")).endswith(b"transfer-encoding: chunked\r\n\r\n")
        await caller.send(b"zz\r\n" + GET)
        assert await server.read_to_end() == b"3\r\nabc\r\n"
        assert (await caller.read_to_end()).startswith(b"HTTP/1.1 400 ")
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.BAD_REQUEST


async def test_a_body_over_the_limit_is_413_and_never_complete_for_the_upstream() -> None:
    async with proxied(server=ServerLimits(max_body_bytes=5)) as (_, upstream, caller):
        await caller.send(post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"))
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await caller.send(b"1\r\nx\r\n0\r\n\r\n")
        assert await server.read_to_end() == b"5\r\nhello\r\n"
        assert (await caller.read_to_end()).startswith(b"HTTP/1.1 413 ")


# --- callers that vanish


@pytest.mark.parametrize("how", ["half-closed", "closed", "reset"])
@pytest.mark.parametrize("when", ["before the answer", "inside the answer"])
async def test_a_vanished_caller_cancels_the_work_upstream(how: str, when: str) -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        if when == "inside the answer":
            await server.send(CUT_ANSWERS["length"])
            await caller.read_until(b"abc")
        if how == "half-closed":
            caller.writer.write_eof()
        elif how == "closed":
            await caller.close()
        else:
            caller.reset()
        assert await server.read_to_end() == b""
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.PEER_GONE


async def test_a_caller_that_vanishes_inside_its_body_completes_nothing() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(post(b"Content-Length: 10\r\n", b"abc"))
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        await caller.close()
        assert await server.read_to_end() == b"abc"
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.PEER_GONE


async def test_a_caller_that_vanishes_before_the_connection_stands_leaves_nothing() -> None:
    async with proxied() as (proxy, _, caller):
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            proxy.origin = Origin("127.0.0.1", nobody.getsockname()[1], key="nobody")
            await caller.send(GET)
            await caller.close()
            error = await proxy.end()
            assert error is not None
            assert error.reason == Reason.PEER_GONE
            async with asyncio.timeout(WAIT_S):
                await proxy.connections.wait_for_empty()


async def test_a_caller_that_vanishes_inside_the_handshake_ends_it() -> None:
    async with proxied(client=ClientLimits(connect_timeout_s=60)) as (proxy, upstream, caller):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        proxy.origin = Origin("127.0.0.1", upstream.port, key="tls", tls=tls, server_name="b")
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_exactly(1)
        await caller.close()
        assert await server.read_to_end()
        error = await proxy.end()
        assert error is not None
        assert error.reason == Reason.PEER_GONE


class OneConnection:
    """A pool of one connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.free: ClientConnection | None = connection

    def take(self, _origin: Origin) -> ClientConnection | None:
        taken, self.free = self.free, None
        return taken


class Ending(Pump):
    """Keeps how it ended."""

    ends: list[SidecarError | None]

    def rewrite(self, head: Response) -> Edits:
        return AS_THEY_ARE

    def unfinished(self, head: Response) -> None:
        pass

    def done(self, error: SidecarError | None) -> None:
        self.ends.append(error)


def pump_over(served: Served, pool: OneConnection, ends: list[SidecarError | None]) -> Pump:
    exchange = served.only
    assert exchange.head is not None
    origin = Origin("b", 1, key="b")
    pump = Ending(
        exchange,
        exchange.head,
        cast("UpstreamPool", pool),
        origin,
        b"/a",
        Edits(end_to_end, (b"host",), (b"b",)),
    )
    pump.ends = ends
    return pump


async def test_nothing_is_sent_for_a_caller_who_is_already_gone() -> None:
    served, calling, ends = Served(), Calling(), list[SidecarError | None]()
    served.receive(GET)
    served.lose()
    pool = OneConnection(calling.connection)
    pump_over(served, pool, ends).start()
    assert [error is not None and error.reason for error in ends] == [Reason.PEER_GONE]
    assert pool.free is calling.connection


async def test_a_caller_who_is_behind_with_an_earlier_answer_holds_the_next_one_back() -> None:
    served, calling = Served(), Calling()
    served.connection.pause_writing()
    served.receive(GET)
    pump_over(served, OneConnection(calling.connection), []).start()
    held = calling.transport.reading
    served.connection.resume_writing()
    assert (held, calling.transport.reading) == (False, True)


async def test_cancel_ends_a_request_from_outside_with_its_reason() -> None:
    async with proxied() as (proxy, upstream, caller):
        await caller.send(GET)
        server = await upstream.accept()
        await server.read_until(b"\r\n\r\n")
        proxy.pumps[0].cut(Unavailable(Reason.DRAINING))
        assert (await caller.read_until(b"draining")).startswith(b"HTTP/1.1 503 ")
        assert await server.read_to_end() == b""


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with proxied() as (_, upstream, caller):
        await caller.send(GET + GET.replace(b"/a?b", b"/second"))
        server = await upstream.accept()
        assert await server.read_exactly(len(GET_SENT)) == GET_SENT
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        assert (await server.read_until(b"\r\n\r\n")).startswith(b"GET /second ")
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
        assert (await caller.read_until(b"\r\n\r\n1")).count(b"HTTP/1.1") == 1
        assert (await caller.read_until(b"\r\n\r\n2")).count(b"HTTP/1.1") == 1
        assert upstream.count == 1


async def test_sixty_four_at_once_each_get_their_own_answer() -> None:
    async with proxied() as (proxy, upstream, _):
        callers = [await proxy.call() for _ in range(64)]
        for _ in range(2):
            for number, caller in enumerate(callers):
                await caller.send(b"GET /%d HTTP/1.1\r\nHost: b\r\n\r\n" % number)
            if upstream.count == 0:
                servers = [await upstream.accept() for _ in callers]
            for server in servers:
                path = (await server.read_until(b"\r\n\r\n")).split(b" ")[1]
                await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            for number, caller in enumerate(callers):
                await caller.read_until(b"\r\n\r\n/%d" % number)
        assert upstream.count == 64
        for caller in callers:
            await caller.close()
