"""WebSocket in front of an agent that speaks HTTP/2: refused where the settings say so, else beside gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from sidecar.identity.tls import client_context, server_context
from tests.integration.h2_caller import asks, speaking_http2
from tests.integration.hops import Hops
from tests.integration.test_websocket import EchoServer, hear, opening, settings
from tests.integration.world import CRM, PLANNER, WRITER, World, bearer, calling, mint
from tests.wire.h2_upstream import H2Upstream

pytestmark = pytest.mark.integration


class BothOnOnePort:
    """An agent that takes HTTP/2 with prior knowledge and HTTP/1.1 on one port, as servers of Go can."""

    def __init__(self) -> None:
        self.port = 0
        self.echo = EchoServer()
        self.by_http2 = H2Upstream()
        self._copying: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = await reader.read(4)
        there, back = await asyncio.open_connection(
            "127.0.0.1", self.by_http2.port if begun == b"PRI " else self.echo.port
        )
        back.write(begun)
        for source, sink in ((reader, back), (there, writer)):
            self._copying.add(asyncio.ensure_future(self._copy(source, sink)))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@pytest.fixture
async def agent() -> AsyncIterator[BothOnOnePort]:
    both = BothOnOnePort()
    await both.by_http2.listen()
    server = await asyncio.start_server(both.accept, "127.0.0.1", 0)
    both.port = server.sockets[0].getsockname()[1]
    async with serve(both.echo.talk, "127.0.0.1", 0, ping_interval=None) as listening:
        both.echo.port = next(iter(listening.sockets)).getsockname()[1]
        yield both
    server.close()
    await both.by_http2.close()


@pytest.mark.parametrize("spoken", [None, "h2c"])
async def test_a_websocket_is_refused_where_the_agent_is_called_by_http2(
    world: World, agent: BothOnOnePort, spoken: str | None
) -> None:
    protocols = {"http2": True} if spoken is None else {"http2": True, "agent": spoken}
    sidecar = await world.sidecar(WRITER, settings(world, agent.port, protocols=protocols))
    tls = calling(await world.source(PLANNER), WRITER)
    if spoken is None:
        async with opening(sidecar, tls) as client:
            await client.send("hello")
            assert await hear(client) == "hello"
        return
    with pytest.raises(InvalidStatus) as refused:
        async with opening(sidecar, tls):
            pass
    response = refused.value.response
    assert (response.status_code, response.headers["delegation-reason"]) == (400, "upgrade_refused")
    assert (agent.echo.headers, agent.by_http2.requests) == ([], [])
    (record,) = await sidecar.wait_for_records(1)
    assert [record[key] for key in ("decision", "reason", "detail", "status")] == [
        "allow", "upgrade_refused", "the upstream is called by HTTP/2, which has no upgrade", 400
    ]  # fmt: skip


async def test_the_agents_one_port_serves_websocket_by_http_1_and_grpc_by_http2(
    world: World, agent: BothOnOnePort
) -> None:
    agent.by_http2.act = lambda asked: asked.answer(b"\0\0\0\0\2hi")
    made = settings(world, agent.port, protocols={"http2": True})
    made["inbound"]["agent_grpc"] = made["inbound"]["agent"]
    (chat,) = made["inbound"]["routes"]
    grpc = {"match": {"path_prefix": "/demo.Echo"}, "protocol": "grpc", "operations": [{"allow": ["demo.Echo/*"]}]}
    made["inbound"]["routes"].append({**chat, "name": "grpc", **grpc})
    chat["match"] = {"path": "/chat", "methods": ["GET"]}
    sidecar = await world.sidecar(WRITER, made)
    source = await world.source(PLANNER)
    async with opening(sidecar, calling(source, WRITER)) as client:
        await client.send("hello")
        assert await hear(client) == "hello"
    async with speaking_http2(sidecar.inbound, client_context(source, expected=WRITER, alpn=("h2",))) as caller:
        headers = [*bearer(mint()), ("content-type", "application/grpc"), ("te", "trailers")]
        answer = await caller.ask(asks("/demo.Echo/Unary", headers=headers), b"\0\0\0\0\2hi")
        other = await caller.ask(asks("/demo.Other/Unary", headers=headers), b"\0\0\0\0\2hi")
    assert (answer.status, answer.content) == (200, b"\0\0\0\0\2hi")
    assert other.fields[b"delegation-reason"] == b"no_route"
    assert [one.fields[b":path"] for one in agent.by_http2.requests] == [b"/demo.Echo/Unary"]


async def test_the_agents_websocket_goes_out_by_http_1_also_where_its_route_says_http2(hops: Hops) -> None:
    echo, chosen = EchoServer(), list[str | None]()

    async def talk(connection: ServerConnection) -> None:
        chosen.append(connection.transport.get_extra_info("ssl_object").selected_alpn_protocol())
        await echo.talk(connection)

    tls = server_context(await hops.world.source(CRM), alpn=("h2", "http/1.1"))
    async with serve(talk, "127.0.0.1", 0, ssl=tls, ping_interval=None) as listening:
        hops.ports["crm"] = next(iter(listening.sockets)).getsockname()[1]
        outbound = hops.settings()["outbound"]
        for route in outbound["routes"]:
            route["http_version"] = "2"
        await hops.start(protocols={"http2": True}, outbound=outbound)
        async with hops.serving() as held:
            url = f"ws://127.0.0.1:{hops.writer.outbound}/crm/chat"
            async with connect(url, additional_headers=held.shown, proxy=None, ping_interval=None) as client:
                await client.send("hello")
                assert await hear(client) == "hello"
    assert chosen == ["http/1.1"]
