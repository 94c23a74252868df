"""gRPC through two sidecars with Go's client and server, and each of them with the other end of grpcio."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.test_grpc import EchoServer, adjust
from tests.interop.engine import require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

GO_GRPC = os.environ.get("GO_GRPC")


class At:
    """A server elsewhere."""

    def __init__(self, port: int) -> None:
        self.port = port


@asynccontextmanager
async def mesh_before(server: EchoServer | At) -> AsyncIterator[Mesh]:
    """Run the mesh with a server of gRPC as the planner's agent."""
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), adjust(server)) as mesh:
            yield mesh


def program() -> str:
    require(None if GO_GRPC else "GO_GRPC names no program")
    assert GO_GRPC is not None
    return GO_GRPC


async def calls_of_go(mesh: Mesh) -> list[str]:
    """Run Go's client against the front app's sidecar; return the lines that it prints."""
    address = f"127.0.0.1:{mesh.sidecars['front'].outbound}"
    ran = await asyncio.create_subprocess_exec(
        program(), "client", address, mesh.log_in(), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        printed, _ = await ran.communicate()
    return printed.decode().splitlines()


REFUSED = "unary  PermissionDenied the handle matches no request in progress (no_request_context)"


async def test_gos_client_calls_gos_server() -> None:
    serving = await asyncio.create_subprocess_exec(
        program(), "server", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert serving.stdin is not None
    assert serving.stdout is not None
    try:
        async with asyncio.timeout(20):
            port = int(await serving.stdout.readline())
        async with mesh_before(At(port)) as mesh:
            assert await calls_of_go(mesh) == [
                "unary alice hello OK ",
                "unary  DataLoss gone",
                REFUSED,
                "many 1000 EOF",
                "sum 499500 <nil>",
                "talk re: 19 EOF",
            ]
    finally:
        serving.stdin.close()
        await serving.wait()


async def test_gos_client_calls_a_server_of_grpcio() -> None:
    program()
    server = EchoServer()
    try:
        async with mesh_before(server) as mesh:
            first, _, refused, *rest = await calls_of_go(mesh)
    finally:
        await asyncio.to_thread(server.stop)
    assert (first, refused) == ("unary alice hello OK ", REFUSED)
    assert rest == ["many 1000 EOF", "sum 499500 <nil>", "talk re: 19 EOF"]
