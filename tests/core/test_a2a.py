from __future__ import annotations

import pytest

from delegation_core import a2a
from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import MessageRefused, RpcMessage
from tests.core.world import reason_of


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("SendMessage", "SendMessage"),
        ("message/send", "SendMessage"),
        ("message/stream", "SendStreamingMessage"),
        ("tasks/resubscribe", "SubscribeToTask"),
        ("tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig"),
        ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard"),
    ],
)
def test_operations_have_the_names_of_version_1(method: str, name: str) -> None:
    assert a2a.operation_of(RpcMessage(1, method, {})) == name


@pytest.mark.parametrize("method", ["message/Send", "sendMessage", "tasks/delete", "GetAgentCard"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        a2a.operation_of(RpcMessage("x", method, {}))
    assert (refused.value.reason, refused.value.id) == (Reason.OPERATION_REFUSED, "x")


def test_a_response_and_a_second_spelling_are_refused() -> None:
    for message in (RpcMessage(1, None, {}), RpcMessage(1, "GetTask", {"id": "a", "ID": "b"})):
        with pytest.raises(MessageRefused) as refused:
            a2a.operation_of(message)
        assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize(
    ("method", "path", "operation", "task"),
    [
        ("POST", "/message:send", "SendMessage", None),
        ("POST", "/v1/message:stream", "SendStreamingMessage", None),
        ("POST", "/tenant-1/message:send", "SendMessage", None),
        ("GET", "/tasks", "ListTasks", None),
        ("GET", "/tasks/7", "GetTask", "7"),
        ("POST", "/tasks/7:cancel", "CancelTask", "7"),
        ("GET", "/tasks/7:subscribe", "SubscribeToTask", "7"),
        ("POST", "/tasks/7:subscribe", "SubscribeToTask", "7"),
        ("POST", "/tasks/7/pushNotificationConfigs", "CreateTaskPushNotificationConfig", "7"),
        ("DELETE", "/tasks/7/pushNotificationConfigs/1", "DeleteTaskPushNotificationConfig", "7"),
        ("GET", "/extendedAgentCard", "GetExtendedAgentCard", None),
    ],
)
def test_a_path_of_http_json_has_one_operation(method: str, path: str, operation: str, task: str | None) -> None:
    assert a2a.operation_of_path(method, path) == (operation, task)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/message:send"),
        ("POST", "/tasks/7"),
        ("DELETE", "/tasks/7"),
        ("POST", "/tasks/7:cancel:cancel"),
        ("POST", "/tasks/7%3Acancel"),
        ("GET", "/tasks/7/8"),
        ("GET", "/a/b/tasks/7"),
        ("POST", "/message:send/"),
        ("POST", "//message:send"),
        ("GET", "/"),
        ("GET", "/tasks/"),
    ],
)
def test_any_other_path_is_refused(method: str, path: str) -> None:
    with pytest.raises(Denied) as refused:
        a2a.operation_of_path(method, path)
    assert refused.value.reason is Reason.OPERATION_REFUSED


@pytest.mark.parametrize(("fields", "query"), [([], []), (["1.0"], []), ([], ["0.3"]), (["1.0"], ["1.0"])])
def test_known_versions_are_taken(fields: list[str], query: list[str]) -> None:
    assert reason_of(a2a.check_version, fields, query) is None


@pytest.mark.parametrize(("fields", "query"), [(["2.0"], []), (["1.0", "0.3"], []), (["1.0"], ["0.3"]), ([""], [])])
def test_other_versions_and_contradictions_are_refused(fields: list[str], query: list[str]) -> None:
    with pytest.raises(MessageRefused) as refused:
        a2a.check_version(fields, query)
    assert refused.value.reason is Reason.PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("parameters", "first"),
    [
        ([], True),
        ([("pageToken", "")], True),
        ([("pageToken", "x")], False),
        ([("page_token", "x"), ("pageSize", 7)], False),
    ],
)
def test_a_token_of_a_page_says_that_it_is_not_the_first(parameters: list[tuple[str, object]], first: bool) -> None:
    assert a2a.is_first_page(parameters) is first
