"""Callers without TLS at the moment when a reload removes their port, each beside a reload that leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests.integration.hops import Hops
from tests.integration.test_observe import KEY, last_record, start
from tests.integration.test_websocket import EchoServer, close_of, deny, hear, reload
from tests.integration.world import PATIENCE_S, bearer, ok, until

pytestmark = pytest.mark.integration

HEAD = b"POST /draft HTTP/1.1\r\nhost: a\r\n"  # without its end
REST = b"x-number: events\r\ncontent-length: 0\r\n\r\n"
EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nd\r\ndata: begun\n\n\r\n"
)

Change = Callable[[dict[str, Any]], None]
stay: Change = partial(deny, "somebody-else")


def remove_port(document: dict[str, Any]) -> None:
    document["inbound"].pop("plain")


async def change(hops: Hops, by: Change) -> None:
    (platform,) = (hops.world.folder / "platform").iterdir()
    await reload(hops.writer, by, platform=platform)


async def test_a_websocket_ends_with_its_port(hops: Hops) -> None:
    echo = EchoServer()
    async with serve(echo.talk, "127.0.0.1", 0, ping_interval=None) as listening:
        hops.agent.port = next(iter(listening.sockets)).getsockname()[1]
        port = await start(hops, plain=True)
        async with connect(f"ws://127.0.0.1:{port}/draft", proxy=None, ping_interval=None) as client:
            await change(hops, stay)
            await client.send("after a reload")
            assert await hear(client) == "after a reload"
            await change(hops, remove_port)
            assert await close_of(client) == (1001, "policy_denied")
        assert await echo.closed() == (1001, "policy_denied")


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not-begun"])
async def test_an_answer_under_way_finishes_and_a_stream_of_events_ends(hops: Hops, begun: bool) -> None:
    port = await start(hops, plain=True)
    page = asyncio.ensure_future(hops.world.call(port, None, headers=[*bearer(KEY), ("x-number", "page")]))
    asked = await asyncio.wait_for(hops.agent.expect("page"), PATIENCE_S)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + REST)
    events = await asyncio.wait_for(hops.agent.expect("events"), PATIENCE_S)
    if begun:
        events.answer.set_result(EVENTS)
        await asyncio.wait_for(reader.readuntil(b"begun"), PATIENCE_S)
    await change(hops, stay)
    await change(hops, remove_port)
    if not begun:
        events.answer.set_result(EVENTS)
    await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    record = await last_record(hops, 1)
    assert (record["decision"], record["reason"]) == ("observed_deny", "no_client_cert")
    assert not page.done()
    asked.answer.set_result(ok(b"done"))
    answer = await page
    assert (answer.status, answer.body) == (200, b"done")


@pytest.mark.parametrize(("by", "status"), [(stay, 200), (remove_port, 403)], ids=["port-stays", "port-goes"])
async def test_a_request_that_is_half_sent_is_new_when_it_is_whole(hops: Hops, by: Change, status: int) -> None:
    hops.agent.script = lambda _head, _body: ok(b"done")
    port = await start(hops, plain=True)
    listeners: Any = hops.writer.server.parts.listeners
    (plain,) = (one for one in listeners if one.address[1] == port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD)
    await until(lambda: any(one._reader.held for one in plain.connections))
    await change(hops, by)
    writer.write(REST)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(hops.agent.requests) == (status == 200)
