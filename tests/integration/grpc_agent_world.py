"""An agent of gRPC between two sidecars, of which two users are served at once. Names are those of examples/grpc."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from tests.integration.agent.grpc_ends import serving_sync
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import PATIENCE_S, free_port, until

USERS: Final = ("alice", "bob")

# Runs an agent at a port, beside a sidecar at a URL, until the block ends.
RunAgent = Callable[[int, str], AbstractAsyncContextManager[None]]


def one_method(service: str, name: str, behavior: Any) -> Any:
    methods = {name: grpc.unary_unary_rpc_method_handler(behavior)}
    return grpc.method_handlers_generic_handler(service, methods)


def crm_says(_request: bytes, context: grpc.ServicerContext) -> bytes:
    return str(dict(context.invocation_metadata())["delegation-subject"]).encode()


class World:
    """front → planner, whose agent is of gRPC → writer, whose agent answers with the user's name."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.tokens = {user: mesh.log_in(user) for user in USERS}

    async def ask(self, times: int = 1) -> list[bytes | grpc.aio.AioRpcError]:
        """Call the agent so many times for both users, all at once."""
        options = [("grpc.default_authority", "planner.mesh"), ("grpc.enable_retries", 0)]
        target = f"127.0.0.1:{self.mesh.sidecars['front'].outbound}"
        async with grpc.aio.insecure_channel(target, options) as channel:
            call = channel.unary_unary("/shop.Planner/Ask")
            shown = [(("authorization", f"Bearer {self.tokens[user]}"),) for user in USERS]
            calls = [call(b"", timeout=PATIENCE_S, metadata=metadata) for metadata in shown * times]
            return await asyncio.gather(*calls, return_exceptions=True)

    async def outbound_records(self, times: int = 1) -> list[dict[str, Any]]:
        """Return the records of the agent's calls."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.mesh.records("planner") if one["direction"] == "outbound"]

        await until(lambda: len(found()) >= len(USERS) * times)
        return found()


@asynccontextmanager
async def world_of(agent: RunAgent, *, allowed: str | None = None, by_prefix: bool = False) -> AsyncIterator[World]:
    port = free_port()
    async with AsyncExitStack() as stack:
        crm = stack.enter_context(serving_sync(one_method("shop.Customers", "Find", crm_says), threads=4))

        def adjust(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
            served = {"planner": ("/shop.Planner", f"127.0.0.1:{port}"), "writer": ("/shop.Customers", crm)}
            following = {"front": "planner.mesh", "planner": "crm"}
            if name in following:
                settings["outbound"]["routes"][0]["match"] = {"host": following[name]}
            if name in served:
                path, agent_at = served[name]
                settings["protocols"] = {"http2": True, "agent": "h2c"}
                settings["inbound"]["agent"] = f"http://{agent_at}"
                settings["inbound"]["routes"][0]["match"] = {"path_prefix": path, "methods": ["POST"]}
            elif name == "front":
                settings["protocols"] = {"http2": True}
            if name == "planner" and by_prefix:
                settings["outbound"]["routes"][0]["match"] = {"prefix": "/crm"}
            if name == "planner" and allowed is not None:
                settings["outbound"]["routes"][0] |= {"protocol": "grpc", "operations": [{"allow": [allowed]}]}

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sc-"))
        mesh = await stack.enter_async_context(open_mesh(Path(folder), adjust))
        outbound = f"http://127.0.0.1:{mesh.sidecars['planner'].outbound}"
        await stack.enter_async_context(agent(port, outbound))
        yield World(mesh)
