"""gRPC through two sidecars with grpclib at both ends."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import free_port

pytestmark = pytest.mark.integration


class Bytes(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "bytes"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class Echo:
    """A service of grpclib."""

    async def unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(stream.metadata["delegation-subject"].encode() + b" " + request)

    async def talk(self, stream: Any) -> None:
        async for request in stream:
            await stream.send_message(b"re: " + request)

    async def fail(self, stream: Any) -> None:
        await stream.recv_message()
        raise GRPCError(Status.DATA_LOSS, "gone")

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/demo.Echo/Unary": Handler(self.unary, Cardinality.UNARY_UNARY, bytes, bytes),
            "/demo.Echo/Talk": Handler(self.talk, Cardinality.STREAM_STREAM, bytes, bytes),
            "/demo.Echo/Fail": Handler(self.fail, Cardinality.UNARY_UNARY, bytes, bytes),
        }


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    port = free_port()

    def adjust(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
        if name == "front":
            settings["protocols"] = {"http2": True}
        elif name == "planner":
            settings["protocols"] = {"http2": True, "agent": "h2c"}
            settings["inbound"]["agent"] = f"http://127.0.0.1:{port}"
            settings["inbound"]["routes"][0]["match"] = {"path_prefix": "/demo.Echo", "methods": ["POST"]}

    server = Server([Echo()], codec=Bytes())
    await server.start("127.0.0.1", port)
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), adjust) as opened:
            yield opened
    server.close()
    await server.wait_closed()


async def test_grpclib_calls_a_server_of_grpclib(mesh: Mesh) -> None:
    shown = {"authorization": f"Bearer {mesh.log_in()}"}
    async with Channel("127.0.0.1", mesh.sidecars["front"].outbound, codec=Bytes()) as channel:
        # grpclib has no default authority, so the agent chooses the next hop by prefix.
        unary = UnaryUnaryMethod(channel, "/planner/demo.Echo/Unary", bytes, bytes)
        assert await unary(b"hello", metadata=shown) == b"alice hello"
        talked = []
        async with StreamStreamMethod(channel, "/planner/demo.Echo/Talk", bytes, bytes).open(metadata=shown) as stream:
            for number in range(10):
                await stream.send_message(b"%d" % number, end=number == 9)
                talked.append(await stream.recv_message())
        assert talked == [b"re: %d" % number for number in range(10)]
        with pytest.raises(GRPCError) as failed:
            await UnaryUnaryMethod(channel, "/planner/demo.Echo/Fail", bytes, bytes)(b"", metadata=shown)
        assert (failed.value.status, failed.value.message) == (Status.DATA_LOSS, "gone")
        with pytest.raises(GRPCError) as refused:
            await unary(b"hello", metadata={"authorization": "Bearer " + "x" * 43})
        assert refused.value.status is Status.PERMISSION_DENIED
        assert refused.value.message is not None
        assert "no_request_context" in refused.value.message
