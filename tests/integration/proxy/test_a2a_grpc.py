"""A2A by gRPC through two sidecars: operations, and refusals of calls, each beside the same one that passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import grpc
import pytest

from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number
from tests.integration.a2a_grpc_world import V03, V1, World, named, opened, sent
from tests.integration.h2_caller import asks, speaking_http2
from tests.integration.world import ok

pytestmark = pytest.mark.integration


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async for made in opened({}):
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
    assert b"TASK_NOT_FOUND" in dict(old.trailing_metadata())["grpc-status-details-bin"]
    called = (await world.mesh.sidecars["front"].wait_for_records(3))[1:]
    assert [(one["reason"], one["detail"]) for one in called] == [("next_hop_refused", "it says task_unknown")] * 2


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
