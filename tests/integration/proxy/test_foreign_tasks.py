"""A task of somebody else in every member of every request of A2A, over real sockets.

Each cell is an operation, by the names of 1.0 and 0.3 and by HTTP+JSON, and a place where a task's id may stand. In
each, the caller's own task reaches the agent, and a known task of another user is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from delegation_core.a2a import OPERATIONS, named
from tests.integration.features.a2a.test_agent_cards import a2a_settings
from tests.integration.features.a2a.test_answers import BOB, V03, V1, answer_with, ask, rpc, sent
from tests.integration.test_operations import Peer
from tests.integration.world import PLANNER, WRITER, World, calling, mint

pytestmark = pytest.mark.integration

OWN, FOREIGN, UNSEEN = "bobs-task", "alices-task", "nobodys-task"
REST: Final = ("Content-Type", "application/a2a+json")
NAMES_OF_V03: Final = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/list": "ListTasks",
    "tasks/cancel": "CancelTask",
    "tasks/resubscribe": "SubscribeToTask",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
    "agent/getAuthenticatedExtendedCard": "GetExtendedAgentCard",
}
METHODS: Final = sorted({*NAMES_OF_V03, *OPERATIONS})
_SENDS: Final = {"SendMessage", "SendStreamingMessage"}
_OF_NO_TASK: Final = {"ListTasks", "GetExtendedAgentCard"}

Put = Callable[[dict[str, Any], str], None]
MEMBERS: Final[dict[str, Put]] = {
    "id": lambda params, task: params.update(id=task),
    "taskId": lambda params, task: params.update(taskId=task),
    "name": lambda params, task: params.update(name=task),
    "name of a resource": lambda params, task: params.update(name=f"tasks/{task}/pushNotificationConfigs/x"),
    "parent": lambda params, task: params.update(parent=f"tasks/{task}"),
    "metadata": lambda params, task: params.update(metadata={"of": [{"task_id": task}]}),
    "referenceTaskIds": lambda params, task: params.update(referenceTaskIds=[task]),
    "message.taskId": lambda params, task: params.setdefault("message", {}).update(taskId=task),
    "message.referenceTaskIds": lambda params, task: params.setdefault("message", {}).update(referenceTaskIds=[task]),
    "configuration": lambda params, task: params.update(configuration={"taskPushNotificationConfig": {"taskId": task}}),
    "query id": lambda params, task: None,
    "query taskId": lambda params, task: None,
    "query name": lambda params, task: None,
}
PATHS: Final = {
    ("POST", "/message:send"): "SendMessage",
    ("POST", "/message:stream"): "SendStreamingMessage",
    ("GET", "/tasks"): "ListTasks",
    ("GET", "/tasks/{}"): "GetTask",
    ("POST", "/tasks/{}:cancel"): "CancelTask",
    ("GET", "/tasks/{}:subscribe"): "SubscribeToTask",
    ("POST", "/tasks/{}:subscribe"): "SubscribeToTask",
    ("POST", "/tasks/{}/pushNotificationConfigs"): "CreateTaskPushNotificationConfig",
    ("GET", "/tasks/{}/pushNotificationConfigs"): "ListTaskPushNotificationConfigs",
    ("GET", "/tasks/{}/pushNotificationConfigs/x"): "GetTaskPushNotificationConfig",
    ("DELETE", "/tasks/{}/pushNotificationConfigs/x"): "DeleteTaskPushNotificationConfig",
    ("GET", "/extendedAgentCard"): "GetExtendedAgentCard",
    ("GET", "/card"): "GetExtendedAgentCard",
}


def params_of(method: str) -> dict[str, Any]:
    """Return what a lawful request by bob has."""
    operation = named(method)
    if operation in _OF_NO_TASK:
        return {}
    if operation in _SENDS:
        return {"message": {"messageId": "m", "parts": [{"text": "hello"}], "taskId": OWN}}
    of_config = "PushNotificationConfig" in operation
    by_id = not of_config or (method in NAMES_OF_V03 and not method.endswith("/set"))
    return {"id" if by_id else "taskId": OWN}


async def peer_of(world: World, **rules: Any) -> Peer:
    settings = a2a_settings(world, operations=[{"allow": sorted(OPERATIONS)}], **({"a2a": rules} if rules else {}))
    peer = Peer(world, await world.sidecar(WRITER, settings), calling(await world.source(PLANNER), WRITER))
    for task, token in ((FOREIGN, mint()), (OWN, mint(BOB))):
        answer_with(world, {"task": {"id": task}})
        assert (await ask(peer, sent(), token=token)).status == 200
    answer_with(world, {"tasks": []})
    return peer


def test_every_operation_is_in_the_tables_of_this_file() -> None:
    assert {named(method) for method in METHODS} == {*PATHS.values()} == {*NAMES_OF_V03.values()} == OPERATIONS
    assert {method: named(method) for method in NAMES_OF_V03} == NAMES_OF_V03


@pytest.mark.parametrize("place", MEMBERS)
async def test_a_task_of_somebody_else_is_refused_in_each_member_by_json_rpc(world: World, place: str) -> None:
    peer = await peer_of(world)
    for method in METHODS:
        for task in (OWN, FOREIGN):
            params = params_of(method)
            MEMBERS[place](params, task)
            query = f"?{place.removeprefix('query ')}={task}" if place.startswith("query ") else ""
            before, version = len(world.agent.requests), V03 if method in NAMES_OF_V03 else V1
            answer = await ask(peer, rpc(method, **params), version, target=f"/a2a{query}", token=mint(BOB))
            if task == OWN:
                assert answer.reason != "task_unknown", method
                assert len(world.agent.requests) == before + 1, method
                continue
            document = json.loads(answer.body)
            assert (answer.status, answer.reason) == (200, "task_unknown"), method
            assert (document["id"], document["error"]["code"]) == (1, -32001), method
            assert len(world.agent.requests) == before, method


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_task_of_somebody_else_is_refused_in_each_member_by_http(world: World, method: str, path: str) -> None:
    peer = await peer_of(world)

    async def use(in_path: str, query: str = "", body: dict[str, Any] | None = None) -> str | None:
        before = len(world.agent.requests)
        content, fields = (b"", (V1,)) if body is None else (body, (V1, REST))
        target = f"/a2a{path.format(in_path)}{query}"
        answer = await peer.send(content, *fields, target=target, method=method, token=mint(BOB))
        refused = answer.reason in {"task_unknown", "operation_malformed"}
        assert len(world.agent.requests) == before + (not refused), target
        assert answer.status == {"task_unknown": 404, "operation_malformed": 400}.get(
            answer.reason or "", answer.status
        )
        return answer.reason if refused else None

    lawful: dict[str, Any] | None = {} if method == "POST" else None
    assert await use(OWN, body=lawful) is None
    if "{}" in path:
        assert await use(FOREIGN, body=lawful) == "task_unknown"
        assert await use(UNSEEN, body=lawful) is None
    for name in ("id", "taskId", "name"):
        assert await use(OWN, f"?{name}={OWN}", lawful) is None
        assert await use(OWN, f"?{name}={FOREIGN}", lawful) == "task_unknown"
        if method == "POST":
            assert await use(OWN, body={name: OWN}) is None
            refused = "operation_malformed" if name == "taskId" and "{}" in path else "task_unknown"
            assert await use(OWN, body={name: FOREIGN}) == refused


@pytest.mark.parametrize("strict", [False, True])
async def test_two_members_that_name_the_task_must_agree(world: World, strict: bool) -> None:
    peer = await peer_of(world, **({"tasks": "strict"} if strict else {}))
    for method in METHODS:
        if named(method) in _OF_NO_TASK:
            continue
        for place in ("taskId", "name of a resource", "parent", "query taskId"):
            params = params_of(method)
            if params.keys() == {"taskId"} and place == "taskId":
                continue  # its own place
            for task in (OWN, UNSEEN):
                params = params_of(method)
                MEMBERS[place](params, task)
                query = f"?taskId={task}" if place.startswith("query ") else ""
                before, version = len(world.agent.requests), V03 if method in NAMES_OF_V03 else V1
                answer = await ask(peer, rpc(method, **params), version, target=f"/a2a{query}", token=mint(BOB))
                if task == OWN:
                    assert (answer.status, answer.reason) == (200, None), (method, place)
                    assert len(world.agent.requests) == before + 1
                else:
                    assert answer.reason == "operation_malformed", (method, place)
                    assert json.loads(answer.body)["id"] == 1
                    assert len(world.agent.requests) == before
