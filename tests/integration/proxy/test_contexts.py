"""Contexts of A2A over real sockets: each use by the user of a context beside the same use by another."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.features.a2a.test_agent_cards import a2a_settings
from tests.integration.features.a2a.test_answers import BOB, V03, V1, answer_with, ask, rpc, sent
from tests.integration.test_operations import Peer
from tests.integration.world import FRONT, PLANNER, WRITER, Answer, World, calling, mint, ok, until

pytestmark = pytest.mark.integration

REST = ("Content-Type", "application/a2a+json")
LIST = {"allow": ["SendMessage", "SendStreamingMessage", "GetTask", "ListTasks", "CreateTaskPushNotificationConfig"]}
HOOK = "https://hooks.acme.example/a2a"


async def peer_of(world: World, **rules: Any) -> Peer:
    settings = a2a_settings(world, operations=[LIST], peers=[PLANNER, FRONT], a2a={"push_urls": [HOOK], **rules})
    return Peer(world, await world.sidecar(WRITER, settings), calling(await world.source(PLANNER), WRITER))


def streamed(shown: object) -> bytes:
    event = b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": shown}).encode() + b"\n\n"
    return ok(event, b"content-type: text/event-stream")


USES: list[tuple[str, Any, tuple[tuple[str, str], ...], str]] = [
    ("POST", sent(contextId="c"), (V1,), "/a2a"),
    ("POST", sent(context_id="c"), (V1,), "/a2a"),
    ("POST", sent("message/send", contextId="c"), (V03,), "/a2a"),
    ("POST", sent("SendStreamingMessage", contextId="c"), (V1,), "/a2a"),
    ("POST", sent("message/stream", contextId="c"), (V03,), "/a2a"),
    ("POST", rpc("SendMessage", contextId="c", message={"messageId": "m"}), (V1,), "/a2a"),
    ("POST", {"message": {"contextId": "c"}}, (V1,), "/a2a/message:send"),
    ("POST", {"message": {"contextId": "c"}}, (V1,), "/a2a/message:stream"),
    ("POST", {"request": {"content": [], "context_id": "c"}}, (V03,), "/a2a/v1/message:send"),
    ("POST", rpc("ListTasks", contextId="c"), (V1,), "/a2a"),
    ("POST", rpc("tasks/list", context_id="c"), (V03,), "/a2a"),
    ("GET", b"", (V1,), "/a2a/tasks?contextId=c"),
    ("GET", b"", (V1,), "/a2a/tasks?pageSize=5&context%5Fid=%63"),
]


async def use(peer: Peer, one: tuple[str, Any, tuple[tuple[str, str], ...], str], token: str | None = None) -> Answer:
    method, message, fields, target = one
    kind = () if method == "GET" else (REST,) if target != "/a2a" else (("Content-Type", "application/json"),)
    return await peer.send(message, *kind, *fields, target=target, method=method, token=token)


@pytest.mark.parametrize(
    "shown",
    [
        {"task": {"id": "7", "contextId": "c"}},
        {"kind": "message", "messageId": "x", "contextId": "c"},
        {"message": {"messageId": "x", "contextId": "c"}},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_context_is_for_the_user_and_the_peer_that_it_was_made_for(
    world: World, shown: dict[str, Any], stream: bool
) -> None:
    peer = await peer_of(world)
    if stream:
        world.agent.script = lambda _head, _body: streamed(shown)
        await ask(peer, sent("SendStreamingMessage"))
    else:
        answer_with(world, shown)
        await ask(peer, sent())
    world.agent.script = lambda _head, _body: ok(b'{"result": {}}', b"content-type: application/json")
    front = Peer(world, peer.sidecar, calling(await world.source(FRONT), WRITER))
    other_peer = mint({"act": {"sub": FRONT}, "client_id": FRONT})
    for number, one in enumerate(USES):
        assert (await use(peer, one)).status == 200, one
        assert (await use(peer, one, mint(BOB))).reason == "context_unknown", one
        assert (await use(front, one, other_peer)).reason == "context_unknown", one
        assert len(world.agent.requests) == number + 2, one
    records = [one for one in await peer.sidecar.wait_for_records(3 * len(USES) + 1) if one["reason"] != "ok"]
    assert {(one["decision"], one["reason"], one["subject"]) for one in records} == {
        ("deny", "context_unknown", "bob"),
        ("deny", "context_unknown", "alice"),
    }


async def test_a_refusal_says_that_there_is_no_such_context(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    await ask(peer, sent())
    refused = await ask(peer, sent(contextId="c"), token=mint(BOB))
    error = json.loads(refused.body)["error"]
    assert (refused.status, error["code"], error["message"]) == (200, -32602, "context not found (context_unknown)")
    refused = await use(peer, USES[6], mint(BOB))
    error = json.loads(refused.body)["error"]
    assert (refused.status, error["status"], error["details"][0]["reason"]) == (404, "NOT_FOUND", "INVALID_PARAMS")


async def test_a_context_that_its_sender_chose_is_its_own_while_the_agent_still_works(world: World) -> None:
    peer = await peer_of(world)
    world.agent.script = lambda _head, _body: world.agent.never()
    waiting = world.background(ask(peer, sent(contextId="chosen")))
    await until(lambda: len(world.agent.requests) == 1)
    assert (await ask(peer, sent(contextId="chosen"), token=mint(BOB))).reason == "context_unknown"
    assert len(world.agent.requests) == 1
    waiting.cancel()  # the caller goes away: nothing was answered in the context
    await asyncio.gather(waiting, return_exceptions=True)
    await peer.sidecar.wait_for_records(2)
    answer_with(world, {"task": {"id": "7", "contextId": "chosen"}})
    assert (await ask(peer, sent(contextId="chosen"), token=mint(BOB))).status == 200
    assert (await ask(peer, sent(contextId="chosen"))).reason == "context_unknown"
    record = (await peer.sidecar.wait_for_records(4))[2]
    assert record["detail"] == "names a context that was not seen here"


@pytest.mark.parametrize(
    "answer",
    [
        ok(b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "bad context id"}}'),
        ok(b'data: {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602}}\n\n', b"content-type: text/event-stream"),
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        ok(b'{"jsonrpc": "2.0", "id": 1, "result": {"task": {"id": "8", "contextId": "another"}}}'),
        b"not HTTP\r\n\r\n",
    ],
)
async def test_a_context_that_the_agent_refuses_to_a_stranger_stays_open_to_its_user(
    world: World, answer: bytes
) -> None:
    """The context is from before a restart, so the sidecar does not know whose it is; the agent does."""
    peer = await peer_of(world)
    world.agent.script = lambda _head, _body: answer
    await ask(peer, sent(contextId="c"), token=mint(BOB))
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    assert (await ask(peer, sent(contextId="c"))).reason is None
    assert (await ask(peer, sent(contextId="c"), token=mint(BOB))).reason == "context_unknown"


async def test_a_caller_that_leaves_a_stream_before_its_first_event_keeps_no_context(world: World) -> None:
    peer = await peer_of(world)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\n"
    world.agent.script = lambda _head, _body: head
    waiting = world.background(ask(peer, sent("SendStreamingMessage", contextId="c"), token=mint(BOB)))
    await peer.sidecar.wait_for_records(1, "request.opened")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await peer.sidecar.wait_for_records(1)
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    assert (await ask(peer, sent(contextId="c"))).reason is None


async def test_a_message_to_a_task_binds_no_context(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    assert (await ask(peer, sent(taskId="7", contextId="c"), token=mint(BOB))).status == 200  # of before a restart
    assert (await ask(peer, sent(taskId="7"), token=mint(BOB))).status == 200
    assert (await ask(peer, sent(referenceTaskIds=["7"]), token=mint(BOB))).status == 200
    assert (await ask(peer, sent(contextId="c"))).reason is None
    assert (await ask(peer, rpc("GetTask", id="7"))).reason is None


async def test_a_task_made_by_a_message_that_refers_to_another_is_bound_too(world: World) -> None:
    peer = await peer_of(world, tasks="strict")
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    await ask(peer, sent())
    answer_with(world, {"task": {"id": "8", "contextId": "d"}})
    assert (await ask(peer, sent(referenceTaskIds=["7"]), token=mint(BOB))).reason == "task_unknown"
    assert (await ask(peer, sent(referenceTaskIds=["7"]))).status == 200
    assert (await ask(peer, rpc("GetTask", id="8"))).reason is None
    assert (await ask(peer, rpc("GetTask", id="8"), token=mint(BOB))).reason == "task_unknown"
    assert (await ask(peer, sent(contextId="d"), token=mint(BOB))).reason == "context_unknown"


async def test_a_configuration_for_the_task_of_somebody_else_is_refused_wherever_it_stands(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"task": {"id": "7"}})
    await ask(peer, sent())
    config = {"taskPushNotificationConfig": {"taskId": "7", "url": f"{HOOK}/x"}}
    message = rpc("SendMessage", message={"messageId": "m"}, configuration=config)

    def create(task: str) -> dict[str, Any]:
        own = {"task_id": task, "config": {"TaskId": "7", "url": f"{HOOK}/x"}}
        return rpc("CreateTaskPushNotificationConfig", **own)

    for one in (message, create("7")):
        assert (await ask(peer, one)).reason is None
        assert (await ask(peer, one, token=mint(BOB))).reason == "task_unknown"
    for token, reason in ((None, "operation_malformed"), (mint(BOB), "task_unknown")):
        assert (await ask(peer, create("8"), token=token)).reason == reason


async def test_a_strict_route_refuses_a_context_that_was_not_seen(world: World) -> None:
    strict = await peer_of(world, tasks="strict")
    answer_with(world, {"task": {"id": "7", "contextId": "c"}})
    for one in USES:
        assert (await use(strict, one)).reason == "context_unknown", one
    assert world.agent.requests == []
    assert (await ask(strict, sent())).status == 200
    assert (await ask(strict, sent(contextId="c"))).status == 200
    assert (await ask(strict, sent(contextId="c"), token=mint(BOB))).reason == "context_unknown"


async def test_a_list_shows_no_task_in_the_context_of_somebody_else(world: World) -> None:
    peer = await peer_of(world)
    answer_with(world, {"message": {"messageId": "x", "contextId": "c"}})
    await ask(peer, sent())
    answer_with(world, {"tasks": [{"id": "1", "contextId": "c"}, {"id": "2", "contextId": "d"}]})
    for token, expected in ((None, ["1", "2"]), (mint(BOB), ["2"])):
        shown = json.loads((await ask(peer, rpc("ListTasks"), token=token)).body)["result"]["tasks"]
        assert [task["id"] for task in shown] == expected


@pytest.mark.parametrize("query", ["contextId=c&contextId=d", "contextId=c&context_id=d", "contextid=c"])
async def test_a_query_that_could_name_two_contexts_is_refused(world: World, query: str) -> None:
    peer = await peer_of(world)
    answer_with(world, {"tasks": []})
    refused = await peer.send(b"", V1, target=f"/a2a/tasks?{query}", method="GET")
    assert (refused.status, refused.reason) == (400, "operation_malformed")
    assert world.agent.requests == []
    assert (await peer.send(b"", V1, target="/a2a/tasks?contextId=c", method="GET")).status == 200
