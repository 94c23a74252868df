"""An agent of gRPC with the library, between two sidecars: users that it serves at once never mix.

The same agent without the interceptor of its server is refused, and the record names both users as candidates.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError
from grpclib.server import Server

import delegation_agent.grpc
import delegation_agent.grpc_aio
import delegation_agent.grpclib
from tests.integration.agent.grpc_agents import aio_server
from tests.integration.agent.grpc_ends import Bytes, serving_sync
from tests.integration.grpc_agent_world import USERS, one_method, world_of
from tests.integration.world import PATIENCE_S

pytestmark = pytest.mark.integration


@asynccontextmanager
async def threads_agent(port: int, outbound: str, *, kept: bool) -> AsyncIterator[None]:
    """Run an agent in threads that asks once it serves both users."""
    together = threading.Barrier(len(USERS), timeout=PATIENCE_S)
    interceptors = [delegation_agent.grpc.ServerInterceptor()] if kept else []
    with delegation_agent.grpc.channel("crm", outbound=outbound) as channel:
        crm = channel.unary_unary("/shop.Customers/Find")

        def ask(request: bytes, context: grpc.ServicerContext) -> Any:
            together.wait()
            try:
                return crm(request, timeout=PATIENCE_S)
            except grpc.RpcError as error:
                together.wait()  # both are served until both are refused
                return context.abort(error.code(), error.details())

        with serving_sync(one_method("shop.Planner", "Ask", ask), threads=2, interceptors=interceptors, port=port):
            yield


@asynccontextmanager
async def loop_agent(port: int, outbound: str, *, kept: bool) -> AsyncIterator[None]:
    """Run the same agent in the event loop."""
    together = asyncio.Barrier(len(USERS))
    async with delegation_agent.grpc_aio.channel("crm", outbound=outbound) as channel:
        crm = channel.unary_unary("/shop.Customers/Find")

        async def ask(request: bytes, context: grpc.aio.ServicerContext) -> Any:
            await together.wait()
            try:
                return await crm(request, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                await together.wait()
                return await context.abort(error.code(), error.details())

        async with aio_server(one_method("shop.Planner", "Ask", ask), kept=kept, port=port):
            yield


class Grpclib:
    """The same agent on grpclib."""

    def __init__(self, crm: Channel) -> None:
        self._find = UnaryUnaryMethod(crm, "/crm/shop.Customers/Find", bytes, bytes)
        self._together = asyncio.Barrier(len(USERS))

    async def ask(self, stream: Any) -> None:
        request = await stream.recv_message()
        await self._together.wait()
        try:
            await stream.send_message(await self._find(request, timeout=PATIENCE_S))
        except GRPCError:
            await self._together.wait()
            raise

    def __mapping__(self) -> dict[str, Handler]:
        return {"/shop.Planner/Ask": Handler(self.ask, Cardinality.UNARY_UNARY, bytes, bytes)}


@asynccontextmanager
async def grpclib_agent(port: int, outbound: str, *, kept: bool) -> AsyncIterator[None]:
    async with delegation_agent.grpclib.channel(outbound=outbound, codec=Bytes()) as crm:
        server = Server([Grpclib(crm)], codec=Bytes())
        if kept:
            delegation_agent.grpclib.keep_handle(server)
        await server.start("127.0.0.1", port)
        yield
        server.close()
        await server.wait_closed()


AGENTS: Final = {"threads": threads_agent, "loop": loop_agent, "grpclib": grpclib_agent}


@pytest.mark.parametrize("agent", AGENTS)
async def test_calls_for_two_users_served_at_once_leave_with_the_token_of_each(agent: str) -> None:
    async with world_of(partial(AGENTS[agent], kept=True), by_prefix=agent == "grpclib") as world:
        assert await world.ask() == [b"alice", b"bob"]
        records = await world.outbound_records()
    assert sorted((one["subject"], one["decision"]) for one in records) == [("alice", "allow"), ("bob", "allow")]


@pytest.mark.parametrize("agent", AGENTS)
async def test_without_the_servers_interceptor_both_calls_are_refused(agent: str) -> None:
    async with world_of(partial(AGENTS[agent], kept=False), by_prefix=agent == "grpclib") as world:
        answers = await world.ask()
        records = await world.outbound_records()
        assert world.mesh.records("writer") == []
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "(no_request_context)" in str(answer.details())
    assert [(one["decision"], one["reason"], one["subject"]) for one in records] == [
        ("deny", "no_request_context", None)
    ] * 2


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
async def test_the_record_of_a_refused_method_names_its_user_or_else_both_as_candidates(*, kept: bool) -> None:
    async with world_of(partial(threads_agent, kept=kept), allowed="shop.Customers/Other") as world:
        answers = await world.ask()
        records = await world.outbound_records()
        served = [one["call_in"] for one in world.mesh.records("planner") if one["direction"] == "inbound"]
    for answer in answers:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert "(operation_refused)" in str(answer.details())
    if kept:
        assert sorted(one["subject"] for one in records) == ["alice", "bob"]
        assert [one["candidates"] for one in records] == [None, None]
    else:
        assert [one["subject"] for one in records] == [None, None]
        assert [set(one["candidates"]) for one in records] == [set(served)] * 2
