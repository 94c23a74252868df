"""An agent of gRPC with the library, between two sidecars: users that it serves at once never mix.

The same agent without the interceptor of its server is refused, and the record names both users as candidates.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import delegation_agent.grpc
import delegation_agent.grpc_aio
from tests.integration.agent.grpc_agents import aio_server
from tests.integration.agent.grpc_ends import serving_sync
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import PATIENCE_S, free_port, until

pytestmark = pytest.mark.integration

USERS: Final = ("alice", "bob")


def one_method(service: str, behavior: Any) -> Any:
    methods = {"Ask": grpc.unary_unary_rpc_method_handler(behavior)}
    return grpc.method_handlers_generic_handler(service, methods)


def crm_says(_request: bytes, context: grpc.ServicerContext) -> bytes:
    return str(dict(context.invocation_metadata())["delegation-subject"]).encode()


@asynccontextmanager
async def threads_agent(port: int, outbound: str, *, kept: bool) -> AsyncIterator[None]:
    """Run an agent in threads that asks once it serves both users."""
    together = threading.Barrier(len(USERS), timeout=PATIENCE_S)
    interceptors = [delegation_agent.grpc.ServerInterceptor()] if kept else []
    with delegation_agent.grpc.channel("writer.mesh", outbound=outbound) as channel:
        crm = channel.unary_unary("/demo.Crm/Ask")

        def ask(request: bytes, context: grpc.ServicerContext) -> Any:
            together.wait()
            try:
                return crm(request, timeout=PATIENCE_S)
            except grpc.RpcError as error:
                together.wait()  # both are served until both are refused
                return context.abort(error.code(), error.details())

        with serving_sync(one_method("demo.Agent", ask), threads=2, interceptors=interceptors, port=port):
            yield


@asynccontextmanager
async def loop_agent(port: int, outbound: str, *, kept: bool) -> AsyncIterator[None]:
    """Run the same agent in the event loop."""
    together = asyncio.Barrier(len(USERS))
    async with delegation_agent.grpc_aio.channel("writer.mesh", outbound=outbound) as channel:
        crm = channel.unary_unary("/demo.Crm/Ask")

        async def ask(request: bytes, context: grpc.aio.ServicerContext) -> Any:
            await together.wait()
            try:
                return await crm(request, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                await together.wait()
                return await context.abort(error.code(), error.details())

        async with aio_server(one_method("demo.Agent", ask), kept=kept, port=port):
            yield


class World:
    """front → planner, whose agent is of gRPC → writer, whose agent answers with the user's name."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.tokens = {user: mesh.log_in(user) for user in USERS}

    async def ask(self) -> list[bytes | grpc.aio.AioRpcError]:
        """Call the agent for both users at once."""
        options = [("grpc.default_authority", "planner.mesh"), ("grpc.enable_retries", 0)]
        target = f"127.0.0.1:{self.mesh.sidecars['front'].outbound}"
        async with grpc.aio.insecure_channel(target, options) as channel:
            call = channel.unary_unary("/demo.Agent/Ask")
            shown = [(("authorization", f"Bearer {self.tokens[user]}"),) for user in USERS]
            calls = [call(b"", timeout=PATIENCE_S, metadata=metadata) for metadata in shown]
            return await asyncio.gather(*calls, return_exceptions=True)

    async def outbound_records(self) -> list[dict[str, Any]]:
        """Return the records of the agent's two calls."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.mesh.records("planner") if one["direction"] == "outbound"]

        await until(lambda: len(found()) >= len(USERS))
        return found()


@asynccontextmanager
async def world_of(agent: Any, *, kept: bool, allowed: str | None = None) -> AsyncIterator[World]:
    port = free_port()
    async with AsyncExitStack() as stack:
        crm = stack.enter_context(serving_sync(one_method("demo.Crm", crm_says), threads=4))

        def adjust(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
            served = {"planner": ("/demo.Agent", f"127.0.0.1:{port}"), "writer": ("/demo.Crm", crm)}
            following = {"front": "planner", "planner": "writer"}
            if name in served:
                path, agent_at = served[name]
                settings["protocols"] = {"http2": True, "agent": "h2c"}
                settings["inbound"]["agent"] = f"http://{agent_at}"
                settings["inbound"]["routes"][0]["match"] = {"path_prefix": path, "methods": ["POST"]}
            elif name == "front":
                settings["protocols"] = {"http2": True}
            if name == "planner" and allowed is not None:
                settings["outbound"]["routes"][0] |= {"protocol": "grpc", "operations": [{"allow": [allowed]}]}
            if name in following:
                settings["outbound"]["routes"][0]["match"] = {"host": f"{following[name]}.mesh"}

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sc-"))
        mesh = await stack.enter_async_context(open_mesh(Path(folder), adjust))
        outbound = f"http://127.0.0.1:{mesh.sidecars['planner'].outbound}"
        await stack.enter_async_context(agent(port, outbound, kept=kept))
        yield World(mesh)


AGENTS: Final = {"threads": threads_agent, "loop": loop_agent}


@pytest.mark.parametrize("agent", AGENTS)
async def test_calls_for_two_users_served_at_once_leave_with_the_token_of_each(agent: str) -> None:
    async with world_of(AGENTS[agent], kept=True) as world:
        assert await world.ask() == [b"alice", b"bob"]
        records = await world.outbound_records()
    assert sorted((one["subject"], one["decision"]) for one in records) == [("alice", "allow"), ("bob", "allow")]


@pytest.mark.parametrize("agent", AGENTS)
async def test_without_the_servers_interceptor_both_calls_are_refused(agent: str) -> None:
    async with world_of(AGENTS[agent], kept=False) as world:
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
    async with world_of(threads_agent, kept=kept, allowed="demo.Crm/Other") as world:
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
