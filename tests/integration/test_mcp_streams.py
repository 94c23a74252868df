"""Streams of MCP, by POST and by GET: a stream that its client ends is no failure, and one that breaks is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from delegation_core.mcp_session import Holder, Session, SessionIds
from tests.integration.hops import Hops, open_hops
from tests.integration.test_event_streams import Feed, hear
from tests.integration.test_operations import SEARCH, Peer, mcp_settings, peer_of
from tests.integration.world import CRM, ISSUER, PATIENCE_S, PLANNER, WRITER, World, bearer, mint

pytestmark = pytest.mark.integration

PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}\n\n'
RESULT = b'data: {"jsonrpc":"2.0","id":"s-1","result":{"content":[]}}\n\n'


IDS = SessionIds(bytes(32))
# A GET needs one, of its caller.
SESSION, OF_WRITER = (
    IDS.give("tools", Session(Holder("subject", peer, ISSUER, "alice"), "s1")) for peer in (PLANNER, WRITER)
)


@pytest.fixture
async def feed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feed]:
    monkeypatch.setattr("sidecar.features.mcp.feature.SessionIds", lambda _key: IDS)
    made = Feed()
    app = web.Application()
    app.router.add_route("*", "/mcp", made.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    for said in (made.said, made.posted):
        said.put_nowait(None)
    await runner.cleanup()


async def peer_before(world: World, feed: Feed) -> Peer:
    settings = mcp_settings(world)
    settings["inbound"]["agent"] = f"http://127.0.0.1:{feed.port}"
    return await peer_of(world, settings)


@asynccontextmanager
async def streaming(
    peer: Peer, method: str, *, kind: str = "", token: str | None = None, message: object = SEARCH
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask for a stream as the planner; it is ended by its client when the block ends."""
    headers = {**dict(bearer(token or mint())), "accept": "application/json, text/event-stream"}
    if method == "GET":
        headers["mcp-session-id"] = SESSION
    body: dict[str, Any] = {"json": message} if method == "POST" else {}
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession() as client,
        client.request(
            method,
            f"https://127.0.0.1:{peer.sidecar.inbound}/mcp{kind}",
            ssl=peer.tls,
            server_hostname="sidecar",
            headers=headers,
            **body,
        ) as answer,
    ):
        assert answer.status == 200
        yield answer


def said_by(feed: Feed, method: str) -> asyncio.Queue[bytes | None]:
    return feed.posted if method == "POST" else feed.said


@pytest.mark.parametrize("events", [[PROGRESS, RESULT], [PROGRESS[:9], PROGRESS[9:]], []], ids=["whole", "cut", "none"])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_stream_that_its_client_ends_is_recorded_as_ok(
    world: World, feed: Feed, method: str, events: list[bytes]
) -> None:
    peer = await peer_before(world, feed)
    async with streaming(peer, method) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        for event in events:
            said_by(feed, method).put_nowait(event)
            assert await hear(answer) == event
        assert len(await peer.sidecar.wait_for_records(1, "request.opened")) == 1
    async with asyncio.timeout(PATIENCE_S):
        await feed.left.get()
    record = await peer.last(1)
    op = "tools/call:search" if method == "POST" else "session/stream"
    assert [record[key] for key in ("decision", "reason", "status", "op", "detail")] == [
        "allow", "ok", 200, op, "its caller ended the stream"
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_another_answer_that_its_client_ends_is_peer_gone(world: World, feed: Feed, method: str) -> None:
    peer = await peer_before(world, feed)
    async with streaming(peer, method, kind="?type=application/json") as answer:
        said_by(feed, method).put_nowait(b'{"jsonrpc":')
        assert await hear(answer) == b'{"jsonrpc":'
    assert (await peer.last(1))["reason"] == "peer_gone"


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_stream_that_its_server_ends_is_ok_and_one_that_breaks_is_not(
    world: World, feed: Feed, method: str
) -> None:
    peer = await peer_before(world, feed)
    async with streaming(peer, method) as answer:
        said_by(feed, method).put_nowait(PROGRESS)
        assert await hear(answer) == PROGRESS
        said_by(feed, method).put_nowait(None)
        assert await hear(answer) == b""
    async with streaming(peer, method) as answer:
        said_by(feed, method).put_nowait(PROGRESS)
        assert await hear(answer) == PROGRESS
        transport = feed.requests[-1].transport
        assert transport is not None
        transport.abort()
        with pytest.raises(aiohttp.ClientPayloadError):
            await hear(answer)
    first, second = await peer.sidecar.wait_for_records(2)
    assert (first["reason"], first["detail"], second["reason"]) == ("ok", None, "upstream_aborted")


@pytest.mark.parametrize("method", ["tools/call", "subscriptions/listen"])
async def test_a_stream_of_subscriptions_ends_with_its_token(world: World, feed: Feed, method: str) -> None:
    settings = mcp_settings(world, {"allow": ["subscriptions/listen", "tools/call:search"]})
    settings["inbound"]["agent"] = f"http://127.0.0.1:{feed.port}"
    peer = await peer_of(world, settings)
    token = mint({"exp": int(time.time()) + 2})
    async with streaming(peer, "POST", token=token, message={**SEARCH, "method": method}) as answer:
        feed.posted.put_nowait(PROGRESS)
        assert await hear(answer) == PROGRESS
        if method == "tools/call":
            await asyncio.sleep(3)  # the token's end
            feed.posted.put_nowait(RESULT)
            assert await hear(answer) == RESULT
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await hear(answer)
    assert (await peer.last(1))["reason"] == ("ok" if method == "tools/call" else "token_expired")


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_stream_through_two_sidecars_ends_as_ok_at_both(tmp_path_factory: Any, feed: Feed, method: str) -> None:
    async with open_hops(tmp_path_factory.mktemp("hops")) as hops:
        tool = mcp_settings(hops.world, peers=[WRITER])
        tool["inbound"]["agent"] = f"http://127.0.0.1:{feed.port}"
        tool["inbound"]["routes"][0]["scopes"] = ["crm.read"]
        tool["inbound"]["routes"][0]["operations"] = [{"allow": ["tools/call:search"]}]
        server = await hops.world.sidecar(CRM, tool)
        await stream_by(hops, server.inbound, feed, method)
        for sidecar, direction in ((server, "inbound"), (hops.writer, "outbound")):
            records = [one for one in await sidecar.wait_for_records(1) if one["direction"] == direction]
            assert [(one["reason"], one["detail"]) for one in records] == [("ok", "its caller ended the stream")]


async def stream_by(hops: Hops, port: int, feed: Feed, method: str) -> None:
    """Let the writer's agent ask for a stream, hear one event, and leave."""
    route = hops.route("tools", CRM, {"prefix": "/tools"}, port) | {
        "protocol": "mcp",
        "operations": [{"allow": ["tools/call:search"]}],
    }
    settings = hops.settings(route={"may_call": ["tools"]})
    settings["outbound"]["routes"] = [route]
    hops.writer = await hops.world.sidecar(WRITER, settings)
    async with hops.serving() as held, asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as client:
        headers = {**dict(held.shown), "content-type": "application/json"} if method == "POST" else dict(held.shown)
        headers |= {"mcp-session-id": OF_WRITER} if method == "GET" else {}
        url = f"http://127.0.0.1:{hops.writer.outbound}/tools/mcp"
        body = json.dumps(SEARCH).encode() if method == "POST" else None
        async with client.request(method, url, headers=headers, data=body) as answer:
            assert answer.status == 200
            said_by(feed, method).put_nowait(PROGRESS)
            assert await hear(answer) == PROGRESS
        await feed.left.get()
