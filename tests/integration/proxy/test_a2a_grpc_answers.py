"""A2A by gRPC through two sidecars: tasks, contexts, lists and extended cards, which are read in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from delegation_core.a2a_tasks import MAX_READ_BYTES
from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number
from sidecar.features.a2a.answers import without_coding
from sidecar.wire.message import Edits
from tests.integration.a2a_grpc_world import V03, V1, World, named, opened, sent

pytestmark = pytest.mark.integration

MANGLED = b"\xff\xff\xff"  # an agent's answer that no Protobuf is


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async for made in opened({}):
        yield made


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    async for made in opened({"tasks": "strict"}):
        yield made


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


async def test_what_an_agent_compresses_unasked_is_read_all_the_same(strict: World) -> None:
    strict.server.compresses = True
    strict.server.answer = field(1, field(1, "task-1") + field(2, "c" * 999))
    assert await strict.call("SendMessage", sent()) == [strict.server.answer]
    assert await strict.call("GetTask", named("task-1"))
    assert await strict.reason("GetTask", named("task-1"), "bob") == "task_unknown"
    strict.server.listed = listed("task-1", *["task-2"] * 99)
    assert await strict.call("ListTasks") == [listed("task-1")]
    assert await strict.call("ListTasks", user="bob") == [b""]
    strict.server.listed = field(1, "planner") + interface("127.0.0.1:50051", "GRPC", "1.0") + field(2, "a" * 999)
    (card,) = await strict.call("GetExtendedAgentCard")
    assert interface("planner.mesh", "GRPC", "1.0") in card
    assert b"50051" not in card


async def test_a_compressed_answer_that_is_too_long_is_refused(world: World) -> None:
    """It is read up to the limit of one that is not compressed."""
    world.server.compresses = True
    world.server.listed = field(9, "a" * 3_000_000)
    assert await world.reason_after_answer("ListTasks") == "list_unreadable"
    assert await world.reason_after_answer("GetExtendedAgentCard") == "card_refused"
    world.server.listed = field(9, "a" * 3_000)
    assert await world.call("ListTasks") == [world.server.listed]


def test_an_answer_that_is_read_is_asked_for_without_compression() -> None:
    edits = without_coding(Edits(lambda _name: True))
    assert not edits.passes(b"grpc-accept-encoding")
    assert edits.passes(b"grpc-timeout")


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
