"""A2A by gRPC through two sidecars, grpcio at both ends: each lawful call beside the same one refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from sidecar.delegation.a2a_tasks import MAX_READ_BYTES
from sidecar.delegation.protobuf import length_field as field
from sidecar.delegation.protobuf import number_field as number
from sidecar.proxy.a2a_answers import not_encoded
from sidecar.wire.message import Edits
from tests.integration.h2_caller import asks, speaking_http2
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.world import PATIENCE_S, ok

pytestmark = pytest.mark.integration

V1, V03 = "lf.a2a.v1.A2AService", "a2a.v1.A2AService"
UNARY: Final = (
    *("SendMessage", "GetTask", "ListTasks", "CancelTask", "CreateTaskPushNotificationConfig"),
    *("GetExtendedAgentCard", "GetAgentCard", "DeleteTaskPushNotificationConfig"),
)
STREAMS: Final = ("SendStreamingMessage", "SubscribeToTask", "TaskSubscription")
HELLO: Final = field(1, "m") + number(4, 1) + field(5, field(1, "hello"))
MANGLED: Final = b"\xff\xff\xff"  # an agent's answer that no Protobuf is


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


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async for made in opened({}):
        yield made


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    async for made in opened({"tasks": "strict"}):
        yield made


@pytest.fixture
async def old_agent() -> AsyncIterator[World]:
    async for made in opened({}, agent="http/1.1"):
        yield made


@pytest.fixture
async def two_ports() -> AsyncIterator[World]:
    """The agent has a port for gRPC beside that of its card and its bindings of JSON."""
    async for made in opened({}, agent="http/1.1", own_port=True):
        yield made


def sent(*, service: str = V1, config: bytes = b"", **ids: str) -> bytes:
    numbers = {"context": 2, "task": 3, "refers": 8}
    message = HELLO + b"".join(field(numbers[name], value) for name, value in ids.items())
    at, configured = (2, 3) if service == V1 else (1, 2)
    return field(at, message) + (field(configured, config) if config else b"")


def named(task: str, service: str = V1) -> bytes:
    return field(2, task) if service == V1 else field(1, f"tasks/{task}")


@pytest.mark.parametrize("service", [V1, V03])
async def test_an_operation_is_that_of_the_other_bindings(world: World, service: str) -> None:
    (made,) = await world.call("SendMessage", sent(service=service), service=service)
    assert made == field(1, field(1, "task-1") + field(2, "context-of-task-1"))
    assert await world.call("GetTask", named("task-1", service), service=service) == [field(1, "some" * 99)]
    assert [name for name, _ in world.server.seen] == ["SendMessage", "GetTask"]
    assert world.server.seen[0][1] == sent(service=service)
    assert world.server.metadata[0]["delegation-subject"] == "alice"
    records = await world.mesh.sidecars["planner"].wait_for_records(2)
    assert [one["op"] for one in records] == ["SendMessage", "GetTask"]
    assert {one["decision"] for one in records} == {"allow"}


async def test_what_no_route_lists_or_needs_another_scope_is_refused_as_in_the_other_bindings(world: World) -> None:
    for method, message in (
        ("DeleteTaskPushNotificationConfig", named("x")),
        ("TaskSubscription", b""),  # of the other version
        ("SendMessag", b""),
    ):
        error = await world.refused(method, message)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert dict(error.trailing_metadata())["delegation-reason"] == "operation_refused"
    assert await world.reason("Check", service="grpc.health.v1.Health") == "operation_refused"
    assert await world.reason("CancelTask", named("x")) == "insufficient_scope"
    records = await world.mesh.sidecars["planner"].wait_for_records(2)
    assert [(one["op"], one["reason"]) for one in records] == [
        ("DeleteTaskPushNotificationConfig", "operation_refused"),
        ("CancelTask", "insufficient_scope"),
    ]
    old = await world.refused("ListTasks", service=V03)  # which 0.3 does not have by gRPC
    assert old.details().startswith("UnsupportedOperationError: ")
    # The others are unknown methods, which the caller's own sidecar refuses.
    records = await world.mesh.sidecars["front"].wait_for_records(6)
    own = [one for one in records if one["reason"] == "operation_refused"]
    assert [one["op"] for one in own] == ["other"] * 4


async def test_a_refusal_is_the_error_that_the_official_clients_know(world: World) -> None:
    await world.call("SendMessage", sent())
    error = await world.refused("GetTask", named("task-1"), "bob")
    text = "task not found (task_unknown)"
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, text)
    status = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert number(1, 5) + field(2, text) in status
    assert b"TASK_NOT_FOUND" in status
    assert b"a2a-protocol.org" in status
    old = await world.refused("GetTask", named("task-1", V03), "bob", service=V03)
    assert (old.code(), old.details()) == (grpc.StatusCode.NOT_FOUND, f"TaskNotFoundError: {text}")
    assert "grpc-status-details-bin" not in dict(old.trailing_metadata())
    called = (await world.mesh.sidecars["front"].wait_for_records(3))[1:]
    assert [(one["reason"], one["detail"]) for one in called] == [("next_hop_refused", "it says task_unknown")] * 2


@pytest.mark.parametrize("service", [V1, V03])
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_a_task_is_for_the_user_for_whom_it_was_made(strict: World, service: str, method: str) -> None:
    await strict.call(method, sent(service=service), service=service)
    for each in (V1, V03):
        assert await strict.call("GetTask", named("task-1", each), service=each)
        assert await strict.reason("GetTask", named("task-1", each), "bob", service=each) == "task_unknown"
        assert await strict.reason("SendMessage", sent(service=each, task="task-1"), "bob", service=each) == (
            "task_unknown"
        )
        assert await strict.reason("GetTask", named("task-9", each), service=each) == "task_unknown"
        assert await strict.reason("GetTask", service=each) == "task_unknown"
    assert await strict.reason("SendMessage", sent(refers="task-1"), "bob") == "task_unknown"
    assert await strict.reason("SendMessage", sent(context="context-of-task-1"), "bob") == "context_unknown"
    assert await strict.call("SendMessage", sent(context="context-of-task-1", refers="task-1"))


async def test_a_task_is_followed_by_its_user_alone(strict: World) -> None:
    await strict.call("SendMessage", sent())
    for service, method in ((V1, "SubscribeToTask"), (V03, "TaskSubscription")):
        task = named("task-1", service)
        assert await strict.call(method, task, service=service) == [field(3, field(1, "some") + field(3, number(1, 3)))]
        assert await strict.reason(method, task, "bob", service=service) == "task_unknown"
    records = await strict.mesh.sidecars["planner"].wait_for_records(5)
    assert [one["op"] for one in records[1:]] == ["SubscribeToTask"] * 4


async def test_a_message_of_a_stream_that_is_too_long_passes_and_nothing_more_is_read(strict: World) -> None:
    long = field(1, field(1, "long") + field(3, b"x" * (MAX_READ_BYTES + 1)))
    strict.server.answer = long
    answers = await strict.call("SendStreamingMessage", sent())
    assert answers[:2] == [long, field(1, field(1, "task-1") + field(2, "context-of-task-1"))]
    for task in ("long", "task-1"):
        assert await strict.reason("GetTask", named(task)) == "task_unknown"


async def test_a_task_that_cannot_be_read_in_the_answer_is_nobodys(strict: World) -> None:
    for answer in (MANGLED, field(1, field(1, "odd") * 2)):
        strict.server.answer = answer
        assert await strict.call("SendMessage", sent()) == [answer]
    assert await strict.reason("GetTask", named("odd")) == "task_unknown"


async def test_a_context_that_the_agent_refuses_is_released(world: World) -> None:
    world.server.fails = True
    with pytest.raises(grpc.RpcError) as failed:
        await world.call("SendMessage", sent(context="chosen"))
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    world.server.fails = False
    world.server.answer = field(2, field(2, "chosen"))
    assert await world.call("SendMessage", sent(context="chosen"), "bob")
    assert await world.reason("SendMessage", sent(context="chosen"), "alice") == "context_unknown"


@pytest.mark.parametrize("service", [V1, V03])
async def test_notifications_go_to_the_listed_urls_alone(world: World, service: str) -> None:
    await world.call("SendMessage", sent(service=service), service=service)

    def config(url: str) -> bytes:
        if service == V1:
            return field(3, "task-1") + field(4, url)
        pushed = field(1, "tasks/task-1/pushNotificationConfigs/c") + field(2, field(1, "c") + field(2, url))
        return field(1, "tasks/task-1") + field(2, "c") + field(3, pushed)

    create = "CreateTaskPushNotificationConfig"
    assert await world.call(create, config("https://hooks.acme.example/a2a/1"), service=service)
    assert await world.reason(create, config("https://evil.example/"), service=service) == "push_url_refused"
    inner = field(4 if service == V1 else 2, "https://evil.example/")
    for method in ("SendMessage", "SendStreamingMessage"):
        message = sent(service=service, config=field(2, inner))
        assert await world.reason(method, message, service=service) == "push_url_refused"
    records = await world.mesh.sidecars["planner"].wait_for_records(5)
    refused = [one for one in records if one["reason"] == "push_url_refused"]
    assert len(refused) == 3
    assert "evil.example" not in json.dumps(refused)


async def test_a_message_that_could_be_read_in_two_ways_is_refused(world: World) -> None:
    for message in (named("a") * 2, number(2, 7), named("a") + field(9, "b"), b"\xff", field(2, b"\xff")):
        error = await world.refused("GetTask", message)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(error.trailing_metadata())["delegation-reason"] == "operation_malformed"
    assert await world.call("GetTask", named("a"))  # without a fault it passes


async def test_a_compressed_message_and_another_version_are_refused(world: World) -> None:
    gzip = grpc.Compression.Gzip
    assert await world.reason("GetTask", named("a" * 999), compression=gzip) == "operation_malformed"
    for stated, service in (("0.3", V1), ("1.0", V03), ("2.0", V1)):
        metadata = [("a2a-version", stated)]
        assert await world.reason("GetTask", named("a", service), service=service, metadata=metadata) == (
            "protocol_version"
        )
    assert await world.call("GetTask", named("a"), metadata=[("a2a-version", "1.0")])


async def test_two_messages_in_one_call_are_refused(world: World) -> None:
    def run() -> None:
        call = world.channel.stream_unary(f"/{V1}/GetTask")
        call(iter([named("a"), named("a")]), timeout=10, metadata=(world.shown("alice"),))

    with pytest.raises(grpc.RpcError) as error:
        await asyncio.to_thread(run)
    assert dict(error.value.trailing_metadata())["delegation-reason"] == "operation_malformed"
    assert world.server.seen == []


async def test_a_call_without_content_is_refused(world: World) -> None:
    headers = [world.shown("alice"), ("content-type", "application/grpc"), ("te", "trailers")]
    async with speaking_http2(world.mesh.sidecars["front"].outbound) as caller:
        fields = asks(f"/{V1}/GetTask", host="planner.mesh", scheme="http", headers=headers)
        for body in (None, b"", b"\0\0\0\0"):
            answer = dict((await caller.ask(fields, body)).fields)
            assert (answer[b"grpc-status"], answer[b"delegation-reason"]) == (b"3", b"operation_malformed")
    assert world.server.seen == []


async def test_the_paths_of_grpc_take_nothing_else(world: World) -> None:
    headers = [world.shown("alice"), ("content-type", "application/json")]
    body = json.dumps({"jsonrpc": "2.0", "id": "a", "method": "GetTask", "params": {"id": "a"}}).encode()
    async with speaking_http2(world.mesh.sidecars["front"].outbound) as caller:
        for path in (f"/{V1}/GetTask", f"/{V03}/GetTask"):
            fields = asks(path, host="planner.mesh", scheme="http", headers=headers)
            answer = await caller.ask(fields, body)
            assert dict(answer.fields)[b"delegation-reason"] == b"operation_malformed"
    assert world.server.seen == []


async def test_an_agent_that_is_called_by_http_1_gets_no_call_of_grpc(old_agent: World) -> None:
    error = await old_agent.refused("GetTask", named("a"))
    assert dict(error.trailing_metadata())["delegation-reason"] == "operation_refused"
    (record,) = await old_agent.mesh.sidecars["planner"].wait_for_records(1)
    assert record["detail"] == "the agent is called by HTTP/1.1; set inbound.agent_grpc"


def listed(*tasks: str) -> bytes:
    return b"".join(field(1, field(1, task) + field(2, f"context-of-{task}")) for task in tasks)


async def test_a_list_has_the_tasks_that_its_reader_may_see(strict: World) -> None:
    await strict.call("SendMessage", sent())
    await strict.call("SendMessage", sent(), "bob")
    strict.server.listed = listed("task-1", "task-2", "task-3") + number(3, 50) + number(4, 3)
    for user, task in (("alice", "task-1"), ("bob", "task-2")):
        (cut,) = await strict.call("ListTasks", user=user)
        assert cut == listed(task) + number(3, 50) + number(4, 1)
    assert await strict.reason("ListTasks", field(2, "context-of-task-1"), "bob") == "context_unknown"
    strict.server.listed = b""
    assert await strict.call("ListTasks") == [b""]


async def test_a_list_that_cannot_be_read_is_refused_and_an_error_passes(world: World) -> None:
    for content in (MANGLED, field(1, b""), listed("a") * 20_000):
        world.server.listed = content
        assert await world.reason_after_answer("ListTasks") == "list_unreadable"
    world.server.fails = True
    with pytest.raises(grpc.RpcError) as error:
        await world.call("ListTasks")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "no")
    assert "delegation-reason" not in dict(error.value.trailing_metadata())


async def test_an_agent_that_compresses_unasked_has_no_lists_and_its_tasks_are_nobodys(strict: World) -> None:
    strict.server.compresses = True
    strict.server.listed = listed(*["task-1"] * 9)
    assert await strict.reason_after_answer("ListTasks") == "list_unreadable"
    strict.server.answer = field(1, field(1, "task-1") + field(2, "c" * 999))
    assert await strict.call("SendMessage", sent()) == [strict.server.answer]
    assert await strict.reason("GetTask", named("task-1")) == "task_unknown"
    strict.server.compresses = False
    await strict.call("SendMessage", sent())
    assert await strict.call("GetTask", named("task-1"))


def test_an_answer_that_is_read_is_asked_for_without_compression() -> None:
    edits = not_encoded(Edits(lambda _name: True))
    assert not edits.passes(b"grpc-accept-encoding")
    assert edits.passes(b"grpc-timeout")


CARD: Final = {
    "name": "planner",
    "supportedInterfaces": [
        {"url": "http://127.0.0.1:8080/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": "127.0.0.1:50051", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        {"url": "127.0.0.1:50051", "protocolBinding": "GRPC", "protocolVersion": "0.3"},
    ],
    "skills": [],
}


async def test_an_agent_may_have_a_port_for_grpc_beside_that_of_its_card(two_ports: World) -> None:
    mesh = two_ports.mesh
    result = {"jsonrpc": "2.0", "id": 1, "result": {"id": "task-1"}}

    def script(head: bytes, _body: bytes) -> bytes:
        shown = CARD if head.startswith(b"GET /.well-known/agent-card.json ") else result
        return ok(json.dumps(shown).encode(), b"content-type: application/json")

    mesh.agents["planner"].script = script
    front = mesh.sidecars["front"].outbound
    answer = await mesh.world.call(front, None, "/.well-known/agent-card.json", method="GET", host="planner.mesh")
    assert [(one["url"], one["protocolVersion"]) for one in json.loads(answer.body)["supportedInterfaces"]] == [
        ("http://planner.mesh/", "1.0"),
        ("planner.mesh", "1.0"),
        ("planner.mesh", "0.3"),
    ]
    await two_ports.call("SendMessage", sent())
    for user, reason in (("alice", None), ("bob", "task_unknown")):  # one table of tasks for both ports
        message = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "task-1"}}
        fields = [two_ports.shown(user), ("content-type", "application/json"), ("a2a-version", "1.0")]
        answer = await mesh.world.call(
            front, None, "/", method="POST", host="planner.mesh", headers=fields, body=json.dumps(message).encode()
        )
        assert (answer.status, answer.reason) == (200, reason)
    assert [name for name, _ in two_ports.server.seen] == ["SendMessage"]
    assert await two_ports.reason("GetTask", named("task-1"), "bob") == "task_unknown"


async def test_a_card_names_no_grpc_that_does_not_reach_the_agent(old_agent: World) -> None:
    mesh = old_agent.mesh
    mesh.agents["planner"].script = lambda _head, _body: ok(
        json.dumps(CARD).encode(), b"content-type: application/json"
    )
    front = mesh.sidecars["front"].outbound
    answer = await mesh.world.call(front, None, "/.well-known/agent-card.json", method="GET", host="planner.mesh")
    assert [one["url"] for one in json.loads(answer.body)["supportedInterfaces"]] == ["http://planner.mesh/"]


def interface(url: str, binding: str, version: str) -> bytes:
    return field(3, field(1, url) + field(2, binding) + field(4, version))


async def test_an_extended_card_leads_through_both_sidecars(world: World) -> None:
    login = field(8, field(1, "login") + field(2, field(3, b"")))
    given = interface("http://127.0.0.1:8080", "HTTP+JSON", "1.0") + interface("127.0.0.1:50051", "GRPC", "1.0")
    world.server.listed = field(1, "planner") + given + login
    (card,) = await world.call("GetExtendedAgentCard")
    ours = interface("http://planner.mesh", "HTTP+JSON", "1.0") + interface("planner.mesh", "GRPC", "1.0")
    assert card == field(1, "planner") + ours
    world.server.listed = field(1, "planner") + field(3, "127.0.0.1:50051") + field(14, "GRPC") + login
    (card,) = await world.call("GetAgentCard", service=V03)
    assert card == field(1, "planner") + field(3, "planner.mesh") + field(14, "GRPC")
    records = await world.mesh.sidecars["planner"].wait_for_records(2)
    assert [(one["op"], one["decision"]) for one in records] == [("GetExtendedAgentCard", "allow")] * 2


async def test_an_extended_card_that_is_signed_or_cannot_be_read_is_refused(world: World) -> None:
    readable = field(1, "planner") + interface("127.0.0.1:50051", "GRPC", "1.0")
    for card in (readable + field(13, field(1, "e30")), MANGLED, readable * 2, interface("127.0.0.1:1", "GRPC", "1.0")):
        world.server.listed = card
        assert await world.reason_after_answer("GetExtendedAgentCard") == "card_refused"
    world.server.listed = readable
    assert await world.call("GetExtendedAgentCard")
