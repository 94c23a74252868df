"""An agent of A2A by gRPC behind two sidecars, with grpcio at both ends."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import PATIENCE_S

V1, V03 = "lf.a2a.v1.A2AService", "a2a.v1.A2AService"
UNARY: Final = (
    *("SendMessage", "GetTask", "ListTasks", "CancelTask", "CreateTaskPushNotificationConfig"),
    *("GetExtendedAgentCard", "GetAgentCard", "DeleteTaskPushNotificationConfig"),
)
STREAMS: Final = ("SendStreamingMessage", "SubscribeToTask", "TaskSubscription")
HELLO: Final = field(1, "m") + number(4, 1) + field(5, field(1, "hello"))


class A2aServer:
    """An agent of both versions, on grpcio. ``seen`` are the methods that reached it, and their messages."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.answer: bytes | None = None  # to a message to the agent, in place of a new task
        self.fails = False
        self.compresses = False  # whatever its client takes
        self.listed = b""
        self.metadata: list[dict[str, str]] = []
        self._numbers = itertools.count(1)
        self._server = grpc.server(ThreadPoolExecutor(8))
        for service in (V1, V03):
            handlers: dict[str, Any] = {
                name: grpc.unary_unary_rpc_method_handler(self._serving(name, self._one)) for name in UNARY
            } | {name: grpc.unary_stream_rpc_method_handler(self._serving(name, self._many)) for name in STREAMS}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _serving(self, name: str, answer: Callable[[str], Any]) -> Callable[[bytes, grpc.ServicerContext], Any]:
        def serve(request: bytes, context: grpc.ServicerContext) -> Any:
            self.seen.append((name, request))
            self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
            if self.compresses:
                context.set_compression(grpc.Compression.Gzip)
            if self.fails:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
            return answer(name)

        return serve

    def _made(self) -> bytes:
        name = f"task-{next(self._numbers)}"
        return field(1, field(1, name) + field(2, f"context-of-{name}"))

    def _one(self, name: str) -> bytes:
        if name in {"ListTasks", "GetExtendedAgentCard", "GetAgentCard"}:
            return self.listed
        if name == "SendMessage":
            return self._made() if self.answer is None else self.answer
        return field(1, "some" * 99)

    def _many(self, name: str) -> Iterator[bytes]:
        if name == "SendStreamingMessage":
            yield field(2, field(1, "m")) if self.answer is None else self.answer
            yield self._made()
        yield field(3, field(1, "some") + field(3, number(1, 3)))

    def stop(self) -> None:
        self._server.stop(0).wait(5)


class World:
    """The mesh, and grpcio at both of its ends."""

    def __init__(self, mesh: Mesh, server: A2aServer) -> None:
        self.mesh = mesh
        self.server = server
        options = [("grpc.default_authority", "planner.mesh"), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{mesh.sidecars['front'].outbound}", options=options)
        self._logins: dict[str, str] = {}

    def shown(self, user: str) -> tuple[str, str]:
        if user not in self._logins:
            self._logins[user] = self.mesh.log_in(user)
        return "authorization", f"Bearer {self._logins[user]}"

    async def call(
        self,
        method: str,
        message: bytes = b"",
        user: str = "alice",
        *,
        service: str = V1,
        metadata: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> list[bytes]:
        """Make a call; return the messages of its answer. Raises grpc.RpcError."""
        path, fields = f"/{service}/{method}", (self.shown(user), *metadata)

        def run() -> list[bytes]:
            if method in STREAMS:
                return list(self.channel.unary_stream(path)(message, timeout=10, metadata=fields, **options))
            return [self.channel.unary_unary(path)(message, timeout=10, metadata=fields, **options)]

        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(run)

    async def refused(self, method: str, message: bytes = b"", user: str = "alice", **options: Any) -> Any:
        """Make a call that a sidecar refuses; return its error. The agent sees nothing of it."""
        before = len(self.server.seen)
        with pytest.raises(grpc.RpcError) as error:
            await self.call(method, message, user, **options)
        assert len(self.server.seen) == before
        return error.value

    async def reason(self, method: str, message: bytes = b"", user: str = "alice", **options: Any) -> str:
        error = await self.refused(method, message, user, **options)
        return str(dict(error.trailing_metadata())["delegation-reason"])

    async def reason_after_answer(self, method: str) -> str:
        """Make a call whose answer is refused; return the reason."""
        with pytest.raises(grpc.RpcError) as error:
            await self.call(method)
        found: Any = error.value
        assert found.code() is grpc.StatusCode.UNAVAILABLE
        return str(dict(found.trailing_metadata())["delegation-reason"])


def adjust(
    server: A2aServer, rules: Mapping[str, Any], allow: Sequence[str], agent: str, *, own_port: bool = False
) -> Any:
    def change(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
        settings["drain_s"] = 5.0
        if name == "front":
            settings["protocols"] = {"http2": True}
            settings["outbound"]["routes"][0] |= {
                "match": {"host": "planner.mesh"},
                "protocol": "a2a",
                "a2a": {"push_urls": ["https://hooks.acme.example/a2a", "https://evil.example/"]},
            }
        elif name == "planner":
            settings["protocols"] = {"http2": True, "agent": agent}
            if agent == "h2c" or own_port:
                settings["inbound"]["agent_grpc" if own_port else "agent"] = f"http://127.0.0.1:{server.port}"
            settings["inbound"]["routes"][0] |= {
                "match": {"path_prefix": "/"},
                "protocol": "a2a",
                "operations": [{"allow": list(allow)}, {"allow": ["CancelTask"], "scopes": ["crm.export"]}],
                "a2a": {"push_urls": ["https://hooks.acme.example/a2a"], **rules},
            }

    return change


OPERATIONS: Final = (
    "SendMessage",
    "ListTasks",
    "GetExtendedAgentCard",
    "SendStreamingMessage",
    "SubscribeToTask",
    "GetTask",
    "CreateTaskPushNotificationConfig",
)


async def opened(
    rules: Mapping[str, Any], allow: Sequence[str] = OPERATIONS, agent: str = "h2c", *, own_port: bool = False
) -> AsyncIterator[World]:
    server = A2aServer()
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), adjust(server, rules, allow, agent, own_port=own_port)) as mesh:
            made = World(mesh, server)
            yield made
            made.channel.close()
            await asyncio.to_thread(server.stop)


def sent(*, service: str = V1, config: bytes = b"", **ids: str) -> bytes:
    numbers = {"context": 2, "task": 3, "refers": 8}
    message = HELLO + b"".join(field(numbers[name], value) for name, value in ids.items())
    at, configured = (2, 3) if service == V1 else (1, 2)
    return field(at, message) + (field(configured, config) if config else b"")


def named(task: str, service: str = V1) -> bytes:
    return field(2, task) if service == V1 else field(1, f"tasks/{task}")
