"""Requests that an upstream of HTTP/2 refuses unseen: sent once more where that is safe, and never again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from h2.errors import ErrorCodes

from sidecar.wire.dialer import Origin
from sidecar.wire.h2_frames import goaway
from sidecar.wire.limits import ClientLimits, ServerLimits
from tests.wire.h2_upstream import Asked, H2Upstream
from tests.wire.loopback import Proxy, Raw


@asynccontextmanager
async def refused_by(upstream: H2Upstream) -> AsyncIterator[Raw]:
    """A caller of HTTP/1.1, whose requests are forwarded to this upstream."""
    async with AsyncExitStack() as stack:
        await upstream.listen()
        stack.push_async_callback(upstream.close)
        proxy = Proxy(Origin("127.0.0.1", upstream.port, key="b", http2="prior"), ServerLimits(), ClientLimits())
        server = await asyncio.get_running_loop().create_server(proxy.connect, "127.0.0.1", 0)
        stack.callback(server.close)
        stack.push_async_callback(proxy.close)
        proxy.port = server.sockets[0].getsockname()[1]
        caller = await proxy.call()
        stack.push_async_callback(caller.close)
        yield caller


def refuse(asked: Asked) -> None:
    asked.refuse(ErrorCodes.REFUSED_STREAM)


def leave(asked: Asked) -> None:
    asked.link.writer.write(goaway(0, ErrorCodes.NO_ERROR))


@pytest.mark.parametrize("act", [refuse, leave])
async def test_an_upstream_that_refuses_every_stream_is_asked_twice(act: Callable[[Asked], None]) -> None:
    upstream = H2Upstream(act)
    async with refused_by(upstream) as caller:
        await caller.send(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n")
        assert (await caller.read_until(b"\r\n")).startswith(b"HTTP/1.1 503 ")
        assert (len(upstream.requests), len(upstream.links)) == (2, 2)


async def test_what_it_refuses_once_is_answered() -> None:
    def refuse_first(asked: Asked) -> None:
        if len(upstream.requests) == 1:
            refuse(asked)
        else:
            asked.answer(b"ok")

    upstream = H2Upstream(refuse_first)
    async with refused_by(upstream) as caller:
        await caller.send(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n")
        assert (await caller.read_until(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        assert len(upstream.links) == 2


class RefusesFirst:
    """Refuses the first stream, and answers the next one."""

    def __init__(self) -> None:
        self.upstream = H2Upstream(self.act)

    def act(self, asked: Asked) -> None:
        if len(self.upstream.requests) == 1:
            refuse(asked)
        else:
            asked.answer(b"ok")


@pytest.mark.parametrize("length", [0, 1, 64 * 1024, 64 * 1024 + 1])
@pytest.mark.parametrize("parts", [1, 2])
async def test_a_request_with_a_body_is_sent_again_if_it_is_small_and_whole(length: int, parts: int) -> None:
    refusing = RefusesFirst()
    async with refused_by(refusing.upstream) as caller:
        head = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % length
        body = bytes(length)
        if parts == 1:
            await caller.send(head + body)
        else:
            await caller.send(head)
            await refusing.upstream.next()
            await caller.send(body)
        answer = await caller.read_until(b"\r\n")
        again = length <= 64 * 1024
        assert answer.startswith(b"HTTP/1.1 200 " if again else b"HTTP/1.1 503 ")
        assert [asked.body for asked in refusing.upstream.requests] == [body] * (1 + again)


async def test_a_request_whose_body_still_comes_is_asked_once() -> None:
    upstream = H2Upstream()
    async with refused_by(upstream) as caller:
        await caller.send(b"PUT /a HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nx")
        refuse(await upstream.next())
        assert (await caller.read_until(b"\r\n")).startswith(b"HTTP/1.1 503 ")
        assert len(upstream.requests) == 1


async def test_a_post_that_a_lost_connection_may_have_carried_is_asked_once() -> None:
    upstream = H2Upstream(lambda asked: asked.link.writer.close())
    async with refused_by(upstream) as caller:
        await caller.send(b"POST /a HTTP/1.1\r\nHost: b\r\n\r\n")
        assert (await caller.read_until(b"\r\n")).startswith(b"HTTP/1.1 503 ")
        assert len(upstream.requests) == 1
