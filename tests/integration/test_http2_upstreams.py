"""HTTP/2 behind a running sidecar: the agent by prior knowledge, next hops by ALPN, one version before another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from sidecar.identity.tls import client_context, server_context
from tests.integration.h2_caller import asks, speaking_http2
from tests.integration.hops import Hops
from tests.integration.test_garbage import no_circles
from tests.integration.world import CRM, PATIENCE_S, PLANNER, WRITER, bearer, mint, ok
from tests.wire.h2_upstream import Asked, H2Upstream

pytestmark = pytest.mark.integration

BOTH = ("h2", "http/1.1")


@pytest.fixture
async def upstream() -> AsyncIterator[H2Upstream]:
    made = H2Upstream()
    yield made
    await made.close()


async def with_agent(hops: Hops, agent: H2Upstream, **changes: Any) -> None:
    """Start the writer's sidecar before an agent of HTTP/2."""
    await agent.listen()
    hops.agent.port = agent.port
    await hops.start(protocols={"http2": True, "agent": "h2c"}, **changes)


async def with_next_hop(hops: Hops, crm: H2Upstream, *, alpn: tuple[str, ...] = BOTH, version: str = "same") -> None:
    """Start the writer's sidecar before a next hop of HTTP/2."""
    await crm.listen(server_context(await hops.world.source(CRM), alpn=alpn))
    hops.ports["crm"] = crm.port
    settings = hops.settings()
    for route in settings["outbound"]["routes"]:
        route["http_version"] = version
    await hops.start(protocols={"http2": True}, outbound=settings["outbound"])


def echo(asked: Asked) -> None:
    asked.answer(b"%b %b" % (asked.fields.get(b"delegation-subject", b"-"), asked.body))


async def test_http_1_in_front_of_an_agent_of_http2(hops: Hops, upstream: H2Upstream) -> None:
    upstream.act = echo
    await with_agent(hops, upstream)
    for number in range(3):
        headers = bearer(mint({"sub": f"user-{number}"}))
        answer = await hops.world.call(hops.writer.inbound, hops.planner, headers=headers, body=b"hello")
        assert (answer.status, answer.body) == (200, b"user-%d hello" % number)
    assert len(upstream.links) == 1
    (asked, *_) = upstream.requests
    assert asked.fields[b":authority"] == f"127.0.0.1:{upstream.port}".encode()
    assert not {b"host", b"connection", b"transfer-encoding"} & set(asked.fields)


async def test_http2_in_front_of_an_agent_of_http2(hops: Hops, upstream: H2Upstream) -> None:
    upstream.act = echo
    await with_agent(hops, upstream)
    planner = client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))
    async with speaking_http2(hops.writer.inbound, planner) as caller:
        answers = await asyncio.gather(
            *(caller.ask(asks(headers=bearer(mint({"sub": f"user-{number}"}))), b"x") for number in range(50))
        )
    assert [one.content for one in answers] == [b"user-%d x" % number for number in range(50)]
    assert len(upstream.links) < 25  # connections are opened while the first one is


async def test_an_answer_passes_in_both_directions_as_it_comes(hops: Hops, upstream: H2Upstream) -> None:
    """A stream of both sides at a time: the answer begins before the request has ended."""
    await with_agent(hops, upstream)
    planner = client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))
    async with speaking_http2(hops.writer.inbound, planner) as caller:
        stream_id = caller.begin(asks(headers=bearer(mint())), ends=False)
        asked = await upstream.next()
        asked.head()
        for number in range(5):
            caller.peer.h2.send_data(stream_id, b"ping %d" % number)
            caller.send()
            await _until(lambda number=number: asked.body.endswith(b"ping %d" % number))
            asked.data(b"pong %d" % number)
            await _until(lambda number=number: caller.peer.answer(stream_id).content.endswith(b"pong %d" % number))
        caller.peer.h2.end_stream(stream_id)
        caller.send()
        await _until(lambda: asked.ended)
        asked.data(b"", ends=True)
        await caller.until(stream_id)


async def pour(h2: H2Connection, send: Callable[[], None], stream_id: int, size: int, sent: list[int]) -> None:
    """Send content as the other end's windows let it leave; ``sent`` counts the bytes."""
    while left := size - sum(sent):
        room = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size, left)
        if room > 0:
            h2.send_data(stream_id, b"x" * room, end_stream=room == left)
            send()
            sent.append(room)
        await asyncio.sleep(0 if room > 0 else 0.005)


HELD = 3 * 65535  # of a stream: what the other end has not read, a window in the sidecar, and what one read brought


async def test_an_agent_that_reads_nothing_stops_its_own_caller_and_no_other(hops: Hops, upstream: H2Upstream) -> None:
    upstream.reads, size, sent = False, 1_000_000, list[int]()
    await with_agent(hops, upstream)
    planner = client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))
    async with speaking_http2(hops.writer.inbound, planner) as caller:
        stream_id = caller.begin(asks(headers=bearer(mint())), ends=False)
        asked = await upstream.next()
        sending = asyncio.ensure_future(pour(caller.peer.h2, caller.send, stream_id, size, sent))
        await _until(lambda: len(asked.body) == 65535)
        await asyncio.sleep(0.3)
        assert len(asked.body) == 65535
        assert 65535 < sum(sent) <= HELD
        other = asyncio.ensure_future(caller.ask(asks(headers=bearer(mint({"sub": "bob"})))))
        (await upstream.next()).answer(b"bob")
        assert (await other).content == b"bob"
        upstream.reads = True
        asked.link.h2.acknowledge_received_data(len(asked.body), asked.stream_id)
        asked.link.send()
        await _until(lambda: asked.ended)
        asked.answer(b"done")
        assert (await caller.until(stream_id)).content == b"done"
        await sending
    assert len(asked.body) == size


async def test_a_caller_that_reads_nothing_stops_its_own_answer_and_no_other(hops: Hops, upstream: H2Upstream) -> None:
    size, sent = 1_000_000, list[int]()
    await with_agent(hops, upstream)
    planner = client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))
    async with speaking_http2(hops.writer.inbound, planner) as caller:
        caller.peer.opens = False
        stream_id = caller.begin(asks(headers=bearer(mint())))
        asked = await upstream.next()
        asked.head()
        sending = asyncio.ensure_future(pour(asked.link.h2, asked.link.send, asked.stream_id, size, sent))
        answer = caller.peer.answer(stream_id)
        await _until(lambda: len(answer.content) == 65535)
        await asyncio.sleep(0.3)
        assert len(answer.content) == 65535
        assert 65535 < sum(sent) <= HELD
        async with speaking_http2(hops.writer.inbound, planner) as another:
            other = asyncio.ensure_future(another.ask(asks(headers=bearer(mint({"sub": "bob"})))))
            (await upstream.next()).answer(b"bob")
            assert (await other).content == b"bob"
        caller.peer.opens = True
        caller.peer.h2.acknowledge_received_data(len(answer.content), stream_id)
        caller.send()
        assert len((await caller.until(stream_id)).content) == size
        await sending
    assert len(upstream.links) == 1


async def _until(wanted: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted():  # noqa: ASYNC110 - the loop itself is what goes on
            await asyncio.sleep(0.005)


async def test_an_agent_that_resets_a_stream_ends_that_call_alone(hops: Hops, upstream: H2Upstream) -> None:
    await with_agent(hops, upstream)
    calls = [
        asyncio.ensure_future(hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint())))
        for _ in range(2)
    ]
    first, second = await upstream.next(), await upstream.next()
    first.refuse(2)
    second.answer(b"done")
    answers = await asyncio.gather(*calls)
    assert sorted((one.status, one.reason) for one in answers) == [(200, None), (502, "upstream_bad_response")]


@pytest.mark.parametrize(("code", "status"), [(ErrorCodes.CANCEL, b"1"), (ErrorCodes.INTERNAL_ERROR, b"14")])
async def test_an_agent_that_cancels_a_call_of_grpc_tells_its_caller_so(
    hops: Hops, upstream: H2Upstream, code: ErrorCodes, status: bytes
) -> None:
    await with_agent(hops, upstream)
    planner = client_context(await hops.world.source(PLANNER), expected=WRITER, alpn=("h2",))
    fields = asks(headers=[*bearer(mint()), ("content-type", "application/grpc"), ("te", "trailers")])
    async with speaking_http2(hops.writer.inbound, planner) as caller:
        early, late = caller.begin(fields), caller.begin(fields)
        first, second = await upstream.next(), await upstream.next()
        first.refuse(code)
        second.link.h2.send_headers(second.stream_id, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        second.link.h2.send_data(second.stream_id, b"\0\0\0\0\2hi")
        second.refuse(code)  # all in one write
        before, inside = await caller.until(early), await caller.until(late)
    assert (before.fields[b"grpc-status"], before.fields[b"delegation-reason"]) == (status, b"upstream_bad_response")
    assert inside.content == b"\0\0\0\0\2hi"
    assert (inside.trailers[b"grpc-status"], inside.trailers[b"delegation-reason"]) == (status, b"upstream_aborted")


async def test_a_call_by_http2_goes_out_by_http2(hops: Hops, upstream: H2Upstream) -> None:
    upstream.act = lambda asked: asked.answer(b"from crm")
    await with_next_hop(hops, upstream)
    async with hops.serving() as held, speaking_http2(hops.writer.outbound) as agent:
        host = f"127.0.0.1:{hops.writer.outbound}"
        fields = asks("/crm/customers", method="GET", host=host, scheme="http", headers=held.shown)
        answers = [await agent.ask(fields) for _ in range(3)]
    assert [(one.status, one.content) for one in answers] == [(200, b"from crm")] * 3
    assert len(upstream.links) == 1
    asked = upstream.requests[0]
    assert (asked.fields[b":path"], asked.fields[b":scheme"]) == (b"/customers", b"https")
    assert asked.fields[b"authorization"].startswith(b"Bearer ey")
    assert [one["decision"] for one in await hops.outbound_records(3)] == ["allow"] * 3


@pytest.mark.parametrize(("version", "by_http2"), [("same", False), ("1.1", False), ("2", True)])
async def test_a_call_by_http_1_goes_out_as_its_route_says(
    hops: Hops, upstream: H2Upstream, version: str, by_http2: bool
) -> None:
    upstream.act = lambda asked: asked.answer(b"from crm")
    if by_http2:
        await with_next_hop(hops, upstream, version=version)
    else:
        settings = hops.settings()
        for route in settings["outbound"]["routes"]:
            route["http_version"] = version
        await hops.start(protocols={"http2": True}, outbound=settings["outbound"])
    async with hops.serving() as held:
        answer = await hops.call(held.shown)
    assert answer.status == 200
    assert len(upstream.requests) == int(by_http2)
    assert len(hops.crm.requests) == int(not by_http2)


async def test_a_next_hop_of_http_1_alone_gets_calls_of_either_version(hops: Hops) -> None:
    settings = hops.settings()
    for route in settings["outbound"]["routes"]:
        route["http_version"] = "2"
    await hops.start(protocols={"http2": True}, outbound=settings["outbound"])
    hops.crm.script = lambda _head, _body: ok(b"from crm")
    async with hops.serving() as held, speaking_http2(hops.writer.outbound) as agent:
        host = f"127.0.0.1:{hops.writer.outbound}"
        answer = await agent.ask(asks("/crm/customers", method="GET", host=host, headers=held.shown))
        other = await hops.call(held.shown)
    assert (answer.content, other.body) == (b"from crm", b"from crm")


async def test_a_next_hop_of_http2_that_is_somebody_else_gets_nothing(hops: Hops, upstream: H2Upstream) -> None:
    await upstream.listen(server_context(await hops.world.source(PLANNER), alpn=BOTH))
    hops.ports["crm"] = upstream.port
    await hops.start(protocols={"http2": True})
    async with hops.serving() as held, speaking_http2(hops.writer.outbound) as agent:
        host = f"127.0.0.1:{hops.writer.outbound}"
        answer = await agent.ask(asks("/crm/customers", method="GET", host=host, headers=held.shown))
    assert (answer.status, answer.fields[b"delegation-reason"]) == (502, b"upstream_identity")
    assert upstream.requests == []


async def test_finished_calls_and_connections_of_an_agent_leave_no_cycles(hops: Hops, upstream: H2Upstream) -> None:
    upstream.act = echo
    await with_agent(hops, upstream)
    pool = hops.writer.server.parts.pools[0]

    async def calls() -> None:
        for _ in range(3):
            await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint()), body=b"hello")
        upstream.act = lambda asked: asked.refuse(2)
        await hops.world.call(hops.writer.inbound, hops.planner, headers=bearer(mint()))
        upstream.act = echo
        for link in upstream.links:
            link.writer.transport.abort()
        await _until(lambda: len(pool.connections) == 0)

    await calls()
    with no_circles():
        await calls()
