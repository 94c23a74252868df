from __future__ import annotations

import json
from typing import Any

import pytest

from delegation_core import a2a
from delegation_core.a2a_tasks import (
    MAX_BESIDE,
    MAX_EVENTS_READ,
    MAX_READ_BYTES,
    NOTHING_SHOWN,
    AnswerReader,
    Named,
    Shown,
    shown_in,
    tasks_named,
)
from delegation_core.json_rpc import MessageRefused, RpcMessage


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
            Named(("7",), about_one=True, beside=("c",)),
        ),
        (
            "GetTaskPushNotificationConfig",
            rpc("tasks/pushNotificationConfig/get", taskId="mine", id="7"),
            None,
            Named(("7",), about_one=True, beside=("mine",), differs=True),
        ),
        (
            "CreateTaskPushNotificationConfig",
            rpc("tasks/pushNotificationConfig/set", taskId="7", pushNotificationConfig={}),
            None,
            Named(("7",), about_one=True),
        ),
        ("CreateTaskPushNotificationConfig", RpcMessage(None, None, {"url": "x"}), "7", Named(("7",), about_one=True)),
        ("SendMessage", rpc("SendMessage", message={"taskId": "7"}), None, Named(("7",))),
        ("SendMessage", rpc("SendMessage", id="8", message={"taskId": "7"}), None, Named(("7",), beside=("8",))),
        ("GetTask", rpc("GetTask", id="7", taskId="8"), None, Named(("7",), True, beside=("8",), differs=True)),
        ("GetTask", rpc("GetTask", id="7", task_id="8"), None, Named(("7",), True, beside=("8",), differs=True)),
        ("GetTask", rpc("GetTask", id="7", taskId="7"), None, Named(("7",), about_one=True)),
        (
            "CancelTask",
            rpc("CancelTask", id="7", name="tasks/8"),
            None,
            Named(("7",), about_one=True, beside=("tasks/8", "tasks", "8"), differs=True),
        ),
        (
            "CancelTask",
            rpc("CancelTask", id="7", parent="tasks/7"),
            None,
            Named(("7",), about_one=True, beside=("tasks/7", "tasks")),
        ),
        ("CancelTask", RpcMessage(None, None, {"id": "8"}), "7", Named(("7",), True, beside=("8",), differs=True)),
        (
            "CancelTask",
            rpc("CancelTask", id="7", metadata={"x": [{"task_id": ["8", 9]}]}),
            None,
            Named(("7",), about_one=True, beside=("8", "9")),
        ),
        (
            "SendMessage",
            rpc("SendMessage", message={"taskId": "7", "parts": [{"data": {"taskId": "8"}}]}),
            None,
            Named(("7",)),
        ),
        ("SendMessage", rpc("SendMessage", taskId="8", message={"taskId": "7"}), None, Named(("7", "8"), differs=True)),
        (
            "SendMessage",
            rpc("SendMessage", name="tasks/8", message={"taskId": "7"}),
            None,
            Named(("7",), beside=("tasks/8", "tasks", "8"), differs=True),
        ),
        (
            "SendMessage",
            rpc("SendMessage", message={"taskId": "7"}, configuration={"x": {"taskId": "8"}}),
            None,
            Named(("7", "8"), differs=True),
        ),
        (
            "SendMessage",
            rpc("SendMessage", referenceTaskIds=["8"], message={"taskId": "7"}),
            None,
            Named(("7",), beside=("8",)),
        ),
        ("GetTask", rpc("GetTask", taskId="8"), None, Named((), about_one=True, beside=("8",))),
        (
            "SendMessage",
            rpc("message/send", message={"taskId": "7", "referenceTaskIds": ["8"]}),
            None,
            Named(("7", "8")),
        ),
        ("SendMessage", RpcMessage(None, None, {"request": {"taskId": "7"}}), None, Named(("7",))),
        (
            "SendMessage",
            RpcMessage(None, None, {"request": {"task_id": "7", "reference_task_ids": ["8"]}}),
            None,
            Named(("7", "8")),
        ),
        (
            "CreateTaskPushNotificationConfig",
            RpcMessage(1, "CreateTaskPushNotificationConfig", {"task_id": "7"}),
            None,
            Named(("7",), about_one=True),
        ),
        ("SendMessage", rpc("SendMessage", message={"taskId": "", "contextId": ""}), None, Named(begins=True)),
        ("SendMessage", rpc("SendMessage"), None, Named(begins=True)),
        ("SendMessage", rpc("SendMessage", message={"contextId": "c"}), None, Named(contexts=("c",), begins=True)),
        (
            "SendStreamingMessage",
            rpc("message/stream", message={"context_id": "c", "task_id": "7"}),
            None,
            Named(("7",), contexts=("c",)),
        ),
        (
            "SendMessage",
            RpcMessage(None, None, {"request": {"contextId": "c", "referenceTaskIds": ["8", "8"]}}),
            None,
            Named(("8",), contexts=("c",), begins=True),
        ),
        (
            "SendMessage",
            rpc("SendMessage", contextId="d", taskId="9", message={"contextId": "c"}),
            None,
            Named(("9",), contexts=("c", "d")),
        ),
        (
            "SendMessage",
            rpc("SendMessage", message={}, configuration={"taskPushNotificationConfig": {"url": "u", "taskId": "9"}}),
            None,
            Named(("9",), begins=True),
        ),
        (
            "CreateTaskPushNotificationConfig",
            rpc("tasks/pushNotificationConfig/set", taskId="7", pushNotificationConfig={"Task_ID": "9"}),
            None,
            Named(("7", "9"), about_one=True, differs=True),
        ),
        ("ListTasks", rpc("ListTasks", id="7"), None, Named(beside=("7",))),
        ("GetExtendedAgentCard", rpc("GetExtendedAgentCard", taskId="7"), None, Named(beside=("7",))),
        ("ListTasks", rpc("tasks/list", contextId="c"), None, Named(contexts=("c",))),
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
        ("CreateTaskPushNotificationConfig", {"config": {"taskId": "8"}}, "7"),
        ("SendMessage", {"message": {"contextId": 7}}, None),
        ("SendMessage", {"message": {"contextId": "x" * 1025}}, None),
        ("SendMessage", {"message": {"contextId": "c", "context_id": "d"}}, None),
        ("SendMessage", {"message": {"ContextId": "c"}}, None),
        ("SendMessage", {"message": {}, "configuration": {"x": [{"taskId": 7}]}}, None),
        ("ListTasks", {"contextId": ["c"]}, None),
        ("GetTask", {"id": "7", "name": "tasks/8/" + "x" * 4096}, None),
        ("SendMessage", {"metadata": [{"id": str(one)} for one in range(MAX_BESIDE + 1)]}, None),
    ],
)
def test_a_task_that_could_be_read_in_two_ways_is_refused(
    operation: str, params: dict[str, Any], path: str | None
) -> None:
    with pytest.raises(MessageRefused):
        tasks_named(operation, RpcMessage(None, operation, params), path)


@pytest.mark.parametrize("name", ["id", "taskId", "task_id", "name", "parent"])
@pytest.mark.parametrize("operation", sorted(a2a.OPERATIONS))
def test_a_query_names_tasks_beside_as_a_body_does(operation: str, name: str) -> None:
    for path in ("7", None):
        assert "8" in tasks_named(operation, RpcMessage(1, operation, {}), path, [(name, "tasks/8")]).beside
        assert tasks_named(operation, RpcMessage(1, operation, {}), path, [("pageSize", "8")]).beside == ()


@pytest.mark.parametrize(
    ("query", "contexts"),
    [
        ([("contextId", "c"), ("pageSize", "7")], ("c",)),
        ([("context_id", "c")], ("c",)),
        ([("contextId", "")], ()),
        ([("contextId", "c"), ("contextId", "c")], None),
        ([("contextId", ""), ("contextId", "c")], None),
        ([("contextId", "c"), ("context_id", "d")], None),
        ([("contextid", "c")], None),
    ],
)
def test_a_query_names_one_context_in_one_way(query: list[tuple[str, str]], contexts: tuple[str, ...] | None) -> None:
    if contexts is None:
        with pytest.raises(MessageRefused):
            tasks_named("ListTasks", None, None, query)
    else:
        assert tasks_named("ListTasks", None, None, query) == Named(contexts=contexts)


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ({"task": {"id": "7"}}, Shown("7")),
        ({"task": {"id": "7", "contextId": "c"}}, Shown("7", "c")),
        ({"task": {"id": "7", "context_id": "c"}}, Shown("7", "c")),
        ({"kind": "task", "id": "7", "contextId": "c"}, Shown("7", "c")),
        ({"kind": "status-update", "taskId": "7", "contextId": "c"}, Shown("7", "c")),
        ({"kind": "message", "id": "7", "contextId": "c"}, Shown(None, "c")),
        ({"statusUpdate": {"taskId": "7", "contextId": "c"}}, Shown("7", "c")),
        ({"status_update": {"task_id": "7", "context_id": "c"}}, Shown("7", "c")),
        ({"artifactUpdate": {"taskId": "7"}}, Shown("7")),
        ({"message": {"taskId": "7"}}, Shown("7")),
        ({"message": {"messageId": "7", "contextId": "c"}}, Shown(None, "c")),
        ({"msg": {"contextId": "c"}}, Shown(None, "c")),
        ({"message": {"messageId": "7"}}, NOTHING_SHOWN),
        ({"task": {"id": 7, "contextId": 7}}, NOTHING_SHOWN),
        ({"task": {"id": "x" * 1025}}, NOTHING_SHOWN),
        ({"task": "7"}, NOTHING_SHOWN),
    ],
)
def test_what_an_answer_shows_in_either_binding(shown: dict[str, Any], found: Shown) -> None:
    assert shown_in(json.dumps(shown).encode()) == found
    assert shown_in(json.dumps({"jsonrpc": "2.0", "id": 1, "result": shown}).encode()) == found


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602}}, True),
        ({"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, True),
        ({"jsonrpc": "2.0", "id": 1, "error": None, "result": {}}, False),
        ({"jsonrpc": "2.0", "id": 1, "result": {"error": {}}}, False),
    ],
)
def test_an_error_is_told_from_what_shows_nothing(answer: dict[str, Any], failed: bool) -> None:
    assert shown_in(json.dumps(answer).encode()) == Shown(failed=failed)


@pytest.mark.parametrize("document", [b"", b"[]", b"no", b'{"result": 7}', b'{"task":{"id":"7","id":"8"}}'])
def test_what_cannot_be_read_in_one_way_shows_nothing(document: bytes) -> None:
    assert shown_in(document) == NOTHING_SHOWN


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_read_up_to_its_task_whatever_its_pieces(size: int, end: bytes) -> None:
    lines = [b": hello", b"", b'data: {"message": {"contextId": "c"}}', b""]
    lines += [b'data: {"jsonrpc": "2.0",', b'data: "id": 1, "result": {"task": {"id": "7"}}}', b"", b""]
    stream = end.join(lines) + b'data: {"task": {"id": "8"}}' + end * 2
    reader = AnswerReader(events=True)
    found = [one for at in range(0, len(stream), size) for one in reader.feed(stream[at : at + size])]
    assert found == [Shown(None, "c"), Shown("7")]
    assert reader.over
    assert reader.end() == []


@pytest.mark.parametrize(("empty", "read"), [(MAX_EVENTS_READ - 1, True), (MAX_EVENTS_READ, False)])
def test_only_the_first_events_of_an_answer_are_read(empty: int, *, read: bool) -> None:
    reader = AnswerReader(events=True)
    assert reader.feed(b":\n\n" * empty + b'data: {"task": {"id": "7"}}\n\n') == [Shown("7")] * read
    assert reader.over


def test_a_whole_answer_is_read_at_its_end_and_one_that_is_too_long_is_not() -> None:
    reader = AnswerReader(events=False)
    assert reader.feed(b'{"task": ') == []
    assert reader.feed(b'{"id": "7"}}') == []
    assert reader.end() == [Shown("7")]
    for events in (True, False):
        long = AnswerReader(events=events)
        long.feed(b"x" * (MAX_READ_BYTES + 1))
        assert long.over
        assert long.end() == []
