"""Reflection of gRPC is a service as any other: it passes where both sidecars list it, and nowhere else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.test_grpc import adjust
from tests.integration.world import PATIENCE_S

pytestmark = pytest.mark.integration

V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = b"\x3a\x01*"  # ServerReflectionRequest(list_services="*")
ONE_SERVICE = b"\x32\x0d\x0a\x0b\x0a\x09demo.Echo"  # its answer: list_services_response, of one service


class Reflecting:
    """A server of grpcio with the service of reflection, in both versions that clients ask for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        for method in (V1, V1ALPHA):
            service, name = method[1:].split("/")
            handler = grpc.stream_stream_rpc_method_handler(self._reflect)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _reflect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        fields = dict(context.invocation_metadata())
        self.seen.append(str(fields["delegation-subject"]))
        for request in requests:
            assert request == LIST_SERVICES
            yield ONE_SERVICE

    def stop(self) -> None:
        self._server.stop(0).wait(5)


@asynccontextmanager
async def reflecting(front: list[str], planner: list[str]) -> AsyncIterator[tuple[Mesh, Reflecting]]:
    """Serve reflection behind two sidecars that list these methods."""
    server = Reflecting()
    base = adjust(server)

    def change(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        base(name, settings, ports)
        if name == "front":
            settings["outbound"]["routes"][0] |= {"protocol": "grpc", "operations": [{"allow": front}]}
        elif name == "planner":
            settings["inbound"]["routes"][0] |= {
                "match": {"path_prefix": "/"}, "protocol": "grpc", "operations": [{"allow": planner}]
            }  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), change) as mesh:
            yield mesh, server
            await asyncio.to_thread(server.stop)


def ask(mesh: Mesh, method: str) -> list[bytes] | grpc.RpcError:
    """Ask for the services as clients of reflection do: by a stream in both directions."""
    options = [("grpc.default_authority", "planner.mesh"), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{mesh.sidecars['front'].outbound}", options=options) as channel:
        shown = (("authorization", f"Bearer {mesh.log_in()}"),)
        try:
            return list(channel.stream_stream(method)(iter([LIST_SERVICES]), timeout=PATIENCE_S, metadata=shown))
        except grpc.RpcError as error:
            return error


@pytest.mark.parametrize("listed", [V1[1:], "grpc.reflection.v1.ServerReflection/*"])
async def test_reflection_passes_where_both_sidecars_list_it(listed: str) -> None:
    async with reflecting([listed], [listed]) as (mesh, server):
        assert await asyncio.to_thread(ask, mesh, V1) == [ONE_SERVICE]
        assert server.seen == ["alice"]
        for name in ("front", "planner"):
            (record,) = await mesh.sidecars[name].wait_for_records(1)
            op = V1 if listed == V1[1:] else "/grpc.reflection.v1.ServerReflection/other"
            assert [record[key] for key in ("decision", "reason", "subject", "op")] == ["allow", "ok", "alice", op]


@pytest.mark.parametrize(
    ("front", "planner", "method", "refused_by"),
    [
        (["demo.Echo/*"], [V1[1:]], V1, "front"),
        ([V1[1:]], ["demo.Echo/*"], V1, "planner"),
        ([V1[1:]], [V1[1:]], V1ALPHA, "front"),  # another version is another service
        ([V1[1:], V1ALPHA[1:]], [V1[1:]], V1ALPHA, "planner"),
    ],
)
async def test_reflection_is_refused_where_a_sidecar_does_not_list_it(
    front: list[str], planner: list[str], method: str, refused_by: str
) -> None:
    async with reflecting(front, planner) as (mesh, server):
        error = await asyncio.to_thread(ask, mesh, method)
        assert isinstance(error, grpc.Call)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert dict(error.trailing_metadata())["delegation-reason"] == "operation_refused"
        assert server.seen == []
        (record,) = await mesh.sidecars[refused_by].wait_for_records(1)
        assert (record["decision"], record["reason"]) == ("deny", "operation_refused")
