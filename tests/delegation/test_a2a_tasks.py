from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.delegation.a2a_tasks import MAX_READ_BYTES, Named, TaskFinder, task_made, tasks_named
from sidecar.delegation.json_rpc import MessageRefused, RpcMessage


def rpc(method: str, **params: Any) -> RpcMessage:
    return RpcMessage(1, method, params)


@pytest.mark.parametrize(
    ("operation", "message", "path", "named"),
    [
        ("GetTask", rpc("GetTask", id="7"), None, Named(("7",), about_one=True)),
        ("CancelTask", rpc("tasks/cancel", id="7"), None, Named(("7",), about_one=True)),
        ("SubscribeToTask", None, "7", Named(("7",), about_one=True)),
        ("GetTask", rpc("GetTask"), None, Named((), about_one=True)),
        (
            "GetTaskPushNotificationConfig",
            rpc("GetTaskPushNotificationConfig", taskId="7", id="c"),
            None,
            Named(("7",), about_one=True),
        ),
        (
            "GetTaskPushNotificationConfig",
            rpc("tasks/pushNotificationConfig/get", taskId="mine", id="7"),
            None,
            Named(("7",), about_one=True),
        ),
        (
            "CreateTaskPushNotificationConfig",
            rpc("tasks/pushNotificationConfig/set", taskId="7", pushNotificationConfig={}),
            None,
            Named(("7",), about_one=True),
        ),
        ("CreateTaskPushNotificationConfig", RpcMessage(None, None, {"url": "x"}), "7", Named(("7",), about_one=True)),
        ("SendMessage", rpc("SendMessage", message={"taskId": "7"}), None, Named(("7",), about_one=False)),
        (
            "SendMessage",
            rpc("message/send", message={"taskId": "7", "referenceTaskIds": ["8"]}),
            None,
            Named(("7", "8"), about_one=False),
        ),
        ("SendMessage", RpcMessage(None, None, {"request": {"taskId": "7"}}), None, Named(("7",), about_one=False)),
        (
            "SendMessage",
            RpcMessage(None, None, {"request": {"task_id": "7", "reference_task_ids": ["8"]}}),
            None,
            Named(("7", "8"), about_one=False),
        ),
        (
            "CreateTaskPushNotificationConfig",
            RpcMessage(1, "CreateTaskPushNotificationConfig", {"task_id": "7"}),
            None,
            Named(("7",), about_one=True),
        ),
        ("SendMessage", rpc("SendMessage", message={"taskId": ""}), None, Named((), about_one=False)),
        ("SendMessage", rpc("SendMessage"), None, Named((), about_one=False)),
        ("ListTasks", rpc("ListTasks", id="7"), None, Named((), about_one=False)),
    ],
)
def test_the_tasks_that_a_request_names(
    operation: str, message: RpcMessage | None, path: str | None, named: Named
) -> None:
    assert tasks_named(operation, message, path) == named


@pytest.mark.parametrize(
    ("operation", "params", "path"),
    [
        ("GetTask", {"id": 7}, None),
        ("GetTask", {"id": "x" * 1025}, None),
        ("SendMessage", {"message": {"task_id": "7", "taskId": "8"}}, None),
        ("SendMessage", {"message": {"Task_Id": "7"}}, None),
        ("SendMessage", {"message": {"taskId": "7", "TaskID": "8"}}, None),
        ("SendMessage", {"message": {"taskId": "7"}, "request": {"taskId": "8"}}, None),
        ("SendMessage", {"message": {"referenceTaskIds": "7"}}, None),
        ("CreateTaskPushNotificationConfig", {"taskId": "8"}, "7"),
    ],
)
def test_a_task_that_could_be_read_in_two_ways_is_refused(
    operation: str, params: dict[str, Any], path: str | None
) -> None:
    with pytest.raises(MessageRefused):
        tasks_named(operation, RpcMessage(None, operation, params), path)


@pytest.mark.parametrize(
    ("shown", "task"),
    [
        ({"task": {"id": "7"}}, "7"),
        ({"kind": "task", "id": "7"}, "7"),
        ({"kind": "status-update", "taskId": "7"}, "7"),
        ({"statusUpdate": {"taskId": "7"}}, "7"),
        ({"artifactUpdate": {"taskId": "7"}}, "7"),
        ({"message": {"taskId": "7"}}, "7"),
        ({"message": {"messageId": "7"}}, None),
        ({"kind": "message", "id": "7"}, None),
        ({"task": {"id": 7}}, None),
        ({"task": "7"}, None),
    ],
)
def test_the_task_that_an_answer_shows_in_either_binding(shown: dict[str, Any], task: str | None) -> None:
    assert task_made(json.dumps(shown).encode()) == task
    assert task_made(json.dumps({"jsonrpc": "2.0", "id": 1, "result": shown}).encode()) == task


@pytest.mark.parametrize("document", [b"", b"[]", b"no", b'{"result": 7}', b'{"task":{"id":"7","id":"8"}}'])
def test_what_cannot_be_read_in_one_way_shows_none(document: bytes) -> None:
    assert task_made(document) is None


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_first_task_of_a_stream_is_found_whatever_its_pieces(size: int, end: bytes) -> None:
    lines = [b": hello", b"", b'data: {"jsonrpc": "2.0",', b'data: "id": 1, "result": {"task": {"id": "7"}}}', b"", b""]
    stream = end.join(lines) + b'data: {"task": {"id": "8"}}' + end * 2
    finder = TaskFinder(events=True)
    found = [finder.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert [one for one in found if one is not None] == ["7"]
    assert finder.end() is None


def test_a_whole_answer_is_read_at_its_end_and_one_that_is_too_long_is_not() -> None:
    finder = TaskFinder(events=False)
    assert finder.feed(b'{"task": ') is None
    assert finder.feed(b'{"id": "7"}}') is None
    assert finder.end() == "7"
    for events in (True, False):
        long = TaskFinder(events=events)
        long.feed(b"x" * (MAX_READ_BYTES + 1))
        assert long.over
        assert long.end() is None
