"""gRPC through two sidecars with Go's client and server, and each of them with the other end of grpcio."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.test_grpc import EchoServer, adjust
from tests.interop.engine import require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

GO_GRPC = os.environ.get("GO_GRPC")


class At:
    """A server elsewhere."""

    def __init__(self, port: int) -> None:
        self.port = port


@asynccontextmanager
async def mesh_before(server: EchoServer | At, listed: list[str] | None = None) -> AsyncIterator[Mesh]:
    """Run the mesh with a server of gRPC as the planner's agent; ``listed`` are the only operations, if given."""
    base = adjust(server)

    def change(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        base(name, settings, ports)
        if listed is not None and name == "planner":
            settings["inbound"]["routes"][0] |= {
                "match": {"path_prefix": "/"}, "protocol": "grpc", "operations": [{"allow": listed}]
            }  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), change) as mesh:
            yield mesh


@asynccontextmanager
async def server_of_go() -> AsyncIterator[At]:
    """Run Go's server."""
    serving = await asyncio.create_subprocess_exec(
        program(), "server", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert serving.stdin is not None
    assert serving.stdout is not None
    try:
        async with asyncio.timeout(20):
            port = int(await serving.stdout.readline())
        yield At(port)
    finally:
        serving.stdin.close()
        await serving.wait()


def program() -> str:
    require(None if GO_GRPC else "GO_GRPC names no program")
    assert GO_GRPC is not None
    return GO_GRPC


async def calls_of_go(mesh: Mesh, command: str = "client") -> list[str]:
    """Run Go's client against the front app's sidecar; return the lines that it prints."""
    address = f"127.0.0.1:{mesh.sidecars['front'].outbound}"
    ran = await asyncio.create_subprocess_exec(
        program(), command, address, mesh.log_in(), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        printed, _ = await ran.communicate()
    return printed.decode().splitlines()


REFUSED = "unary  PermissionDenied the call has no handle of a request in progress (no_request_context)"


async def test_gos_client_calls_gos_server() -> None:
    async with server_of_go() as server, mesh_before(server) as mesh:
        assert await calls_of_go(mesh) == [
            "unary alice hello OK ",
            "unary  DataLoss gone",
            REFUSED,
            "many 1000 EOF",
            "sum 499500 <nil>",
            "talk re: 19 EOF",
        ]


REFLECTION, HEALTH = "grpc.reflection.v1.ServerReflection/*", "grpc.health.v1.Health/Check"
DENIED = "PermissionDenied"


@pytest.mark.parametrize(
    ("listed", "reflected", "health"),
    [
        ([REFLECTION, HEALTH], True, "health SERVING OK"),
        ([REFLECTION], True, f"health UNKNOWN {DENIED}"),
        ([HEALTH], False, "health SERVING OK"),
        (["demo.Echo/*"], False, f"health UNKNOWN {DENIED}"),
    ],
)
async def test_a_client_of_reflection_sees_gos_services_where_both_are_listed(
    listed: list[str], reflected: bool, health: str
) -> None:
    async with server_of_go() as server, mesh_before(server, listed) as mesh:
        services, methods, last = await calls_of_go(mesh, "reflect")
    assert last == health
    if reflected:
        assert services.endswith(" OK")
        assert {"demo.Echo", "grpc.health.v1.Health"} <= set(services.replace("[", " ").replace("]", " ").split())
        assert methods.split()[:2] == ["methods", "Check"]
    else:
        assert (services, methods) == (f"services [] {DENIED}", f"methods {DENIED}")


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
