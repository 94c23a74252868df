"""A2A operations of requests by JSON-RPC or HTTP+JSON; ``a2a_grpc`` has the gRPC binding.

Keys are the names of version 1; those of 0.3 are mapped onto them. Requests do not name skills, so skills have no
policy (A2A 1.0 section 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import MessageRefused, RpcMessage, one_spelling, without_marks

VERSIONS: Final = frozenset({"0.3", "1.0"})
FIRST_VERSION: Final = "0.3"  # the default for a request without A2A-Version

_V03: Final = {
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
OPERATIONS: Final = frozenset(_V03.values())

_SEGMENT: Final = r"[A-Za-z0-9._~!$&'()*+,;=@-]+"
_TASK: Final = rf"/tasks/(?P<task>{_SEGMENT})"
_CONFIGS: Final = rf"{_TASK}/pushNotificationConfigs"
# Operations of HTTP+JSON; group 1 is the path before them.
_PATHS: Final = tuple(
    (methods, re.compile(rf"((?:/{_SEGMENT})*?){path}"), operation)
    for methods, path, operation in (
        ("POST", "/message:send", "SendMessage"),
        ("POST", "/message:stream", "SendStreamingMessage"),
        ("GET", "/tasks", "ListTasks"),
        ("GET", _TASK, "GetTask"),
        ("POST", f"{_TASK}:cancel", "CancelTask"),
        ("GET POST", f"{_TASK}:subscribe", "SubscribeToTask"),
        ("POST", _CONFIGS, "CreateTaskPushNotificationConfig"),
        ("GET", _CONFIGS, "ListTaskPushNotificationConfigs"),
        ("GET", f"{_CONFIGS}/{_SEGMENT}", "GetTaskPushNotificationConfig"),
        ("DELETE", f"{_CONFIGS}/{_SEGMENT}", "DeleteTaskPushNotificationConfig"),
        ("GET", "/extendedAgentCard", "GetExtendedAgentCard"),
        ("GET", "/card", "GetExtendedAgentCard"),
    )
)
_PARAMS: Final = frozenset(
    {
        "configuration",
        "contextId",
        "context_id",
        "id",
        "message",
        "metadata",
        "name",
        "parent",
        "pushNotificationConfig",
        "pushNotificationConfigId",
        "push_notification_config",
        "push_notification_config_id",
        "request",
        "taskId",
        "task_id",
        "tenant",
        "url",
    }
)


def named(operation: str) -> str:
    """Return the name of ``operation`` in version 1.0. Raises ValueError for an unknown operation."""
    name = _V03.get(operation, operation)
    if name not in OPERATIONS:
        raise ValueError("not an operation of A2A")
    return name


def operation_of(message: RpcMessage) -> str:
    """Return the operation that a JSON-RPC message requests, by its name in version 1.0.

    Raises:
        MessageRefused: OPERATION_MALFORMED for a response or ambiguous params; OPERATION_REFUSED for an unknown method.
    """
    if message.method is None:
        raise MessageRefused(
            "the message is a response, but an agent sends its callers no requests", message_id=message.id
        )
    check_params(message)
    try:
        return named(message.method)
    except ValueError:
        detail = "an unknown method"
        raise MessageRefused(detail, message_id=message.id, reason=Reason.OPERATION_REFUSED) from None


def check_params(message: RpcMessage) -> None:
    """Refuse a message whose params (for HTTP+JSON, the body) have ambiguous member names.

    Raises:
        MessageRefused: OPERATION_MALFORMED.
    """
    one_spelling(message.params, _PARAMS, message_id=message.id, fold=without_marks)


def is_path_of_operation(path: str) -> bool:
    """True if ``path`` ends with the path of an HTTP+JSON operation, for any method."""
    return any(pattern.fullmatch(path) for _, pattern, _ in _PATHS)


def operation_of_path(method: str, path: str, *, anywhere: bool = False) -> tuple[str, str | None]:
    """Return the operation of an HTTP+JSON request and the task id in its path, if any. ``path``: below the interface.

    One segment may precede the operation (a tenant, or the version in 0.3); with ``anywhere`` any number may.

    Raises:
        Denied: OPERATION_REFUSED if not exactly one operation has this method and path.
    """
    found = [
        (operation, matched)
        for methods, pattern, operation in _PATHS
        if method in methods.split()
        and (matched := pattern.fullmatch(path)) is not None
        and (anywhere or matched[1].count("/") <= 1)
    ]
    if len(found) != 1:
        raise Denied(Reason.OPERATION_REFUSED, "no operation, or more than one, has this method and path")
    operation, matched = found[0]
    return operation, matched.groupdict().get("task")


def is_first_page(parameters: Iterable[tuple[str, object]]) -> bool:
    """True if the parameters of a list request have no page token."""
    return not any(value for name, value in parameters if without_marks(name) == "pagetoken")


def is_first_version(fields: Iterable[str], query: Iterable[str]) -> bool:
    """True unless a request states version 1.0 in a field or in the query; an unknown version counts as 0.3."""
    return "1.0" not in {*fields, *query}


def check_version(fields: Iterable[str], query: Iterable[str]) -> None:
    """Check the values of ``A2A-Version`` in the header fields and the query. Without any the version is 0.3.

    Raises:
        MessageRefused: PROTOCOL_VERSION for an unknown version, or two that differ.
    """
    stated = {*fields, *query} or {FIRST_VERSION}
    if len(stated) != 1 or not stated <= VERSIONS:
        raise MessageRefused("the A2A-Version is unknown, or two differ", reason=Reason.PROTOCOL_VERSION)
