"""A2A by gRPC, versions 0.3 and 1.0: maps calls to operations, and messages to JSON-RPC parameters. Pure.

A message becomes the params that JSON-RPC has for the same operation, so policy reads one form for all bindings. In
0.3 tasks are resource names, ``tasks/{id}``. A field that is unknown in its version is refused, since the agent might
read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from delegation_core.a2a import FIRST_VERSION
from delegation_core.a2a_tasks import MAX_EVENTS_READ, MAX_READ_BYTES, NOTHING_SHOWN, Shown, shown_of
from delegation_core.errors import Reason
from delegation_core.grpc_messages import GrpcMessageError, GrpcMessages, one_message
from delegation_core.json_rpc import MessageRefused, RpcMessage
from delegation_core.protobuf import Field, Kind, ProtobufError, Schema, read

MAX_FIELDS: Final = 1024  # in one request message; a field takes two bytes or more, and a microsecond to read
_MAX_FIELDS_OF_ANSWER: Final = 4096

_is_path: Final = re.compile(r"/((?:lf\.)?a2a\.v1\.A2AService)/([A-Za-z]{1,64})").fullmatch
_is_task: Final = re.compile(r"tasks/([^/]+)(?:/pushNotificationConfigs(?:/[^/]*)?)?").fullmatch
_SERVICES: Final = {"1.0": "/lf.a2a.v1.A2AService/", "0.3": "/a2a.v1.A2AService/"}


def _task(name: str) -> str:
    """Return the task id in a resource name of 0.3; empty for an empty name. Raises ProtobufError."""
    if not name:
        return ""
    match = _is_task(name)
    if match is None:
        raise ProtobufError("the resource is neither a task nor a task's push configuration")
    return match[1]


_NUMBER: Final = Field(Kind.NUMBER)
_SKIPPED: Final = Field(Kind.OPAQUE)
_MANY: Final = Field(Kind.OPAQUE, many=True)


def _text(name: str) -> Field:
    return Field(Kind.TEXT, name)


def _of_task(name: str) -> Field:
    return Field(Kind.TEXT, name, convert=_task)


def _message(name: str, schema: Schema) -> Field:
    return Field(Kind.MESSAGE, name, schema=schema)


class Method(NamedTuple):
    """A method of a service: its operation, and the fields of its request message."""

    operation: str
    request: Schema


# message_id, role, parts, metadata and extensions have the same numbers in both versions.
_SENT_V03: Final[Schema] = {
    1: _SKIPPED,
    2: _text("contextId"),
    3: _text("taskId"),
    4: _NUMBER,
    5: _MANY,
    6: _SKIPPED,
    7: _MANY,
}
_SENT_V1: Final[Schema] = {**_SENT_V03, 8: Field(Kind.TEXT, "referenceTaskIds", many=True)}
_PUSH_V03: Final[Schema] = {1: _SKIPPED, 2: _text("url"), 3: _SKIPPED, 4: _SKIPPED}
_PUSH_V1: Final[Schema] = {1: _SKIPPED, 2: _SKIPPED, 3: _text("taskId"), 4: _text("url"), 5: _SKIPPED, 6: _SKIPPED}
_CONFIGURATION_V03: Final[Schema] = {1: _MANY, 2: _message("pushNotificationConfig", _PUSH_V03), 3: _NUMBER, 4: _NUMBER}
_CONFIGURATION_V1: Final[Schema] = {
    1: _MANY,
    2: _message("taskPushNotificationConfig", _PUSH_V1),
    3: _NUMBER,
    4: _NUMBER,
}
_SEND_V03: Final[Schema] = {
    1: _message("message", _SENT_V03),
    2: _message("configuration", _CONFIGURATION_V03),
    3: _SKIPPED,
}
_SEND_V1: Final[Schema] = {
    1: _SKIPPED,
    2: _message("message", _SENT_V1),
    3: _message("configuration", _CONFIGURATION_V1),
    4: _SKIPPED,
}
_CONFIG_V1: Final[Schema] = {1: _SKIPPED, 2: _text("taskId"), 3: _SKIPPED}

_V1: Final = {
    "SendMessage": Method("SendMessage", _SEND_V1),
    "SendStreamingMessage": Method("SendStreamingMessage", _SEND_V1),
    "GetTask": Method("GetTask", {1: _SKIPPED, 2: _text("id"), 3: _NUMBER}),
    "CancelTask": Method("CancelTask", {1: _SKIPPED, 2: _text("id"), 3: _SKIPPED}),
    "SubscribeToTask": Method("SubscribeToTask", {1: _SKIPPED, 2: _text("id")}),
    "CreateTaskPushNotificationConfig": Method("CreateTaskPushNotificationConfig", _PUSH_V1),
    "GetTaskPushNotificationConfig": Method("GetTaskPushNotificationConfig", _CONFIG_V1),
    "DeleteTaskPushNotificationConfig": Method("DeleteTaskPushNotificationConfig", _CONFIG_V1),
    "ListTaskPushNotificationConfigs": Method(
        "ListTaskPushNotificationConfigs", {1: _text("taskId"), 2: _NUMBER, 3: _SKIPPED, 4: _SKIPPED}
    ),
    "GetExtendedAgentCard": Method("GetExtendedAgentCard", {1: _SKIPPED}),
    "ListTasks": Method(
        "ListTasks",
        {
            1: _SKIPPED,
            2: _text("contextId"),
            3: _NUMBER,
            4: _NUMBER,
            5: _text("pageToken"),
            6: _NUMBER,
            7: _SKIPPED,
            8: _NUMBER,
        },
    ),
}
_V03: Final = {
    "SendMessage": Method("SendMessage", _SEND_V03),
    "SendStreamingMessage": Method("SendStreamingMessage", _SEND_V03),
    "GetTask": Method("GetTask", {1: _of_task("id"), 2: _NUMBER}),
    "CancelTask": Method("CancelTask", {1: _of_task("id")}),
    "TaskSubscription": Method("SubscribeToTask", {1: _of_task("id")}),
    "CreateTaskPushNotificationConfig": Method(
        "CreateTaskPushNotificationConfig",
        {
            1: _of_task("taskId"),
            2: _SKIPPED,
            3: _message("config", {1: _of_task("taskId"), 2: _message("pushNotificationConfig", _PUSH_V03)}),
        },
    ),
    "GetTaskPushNotificationConfig": Method("GetTaskPushNotificationConfig", {1: _of_task("taskId")}),
    "DeleteTaskPushNotificationConfig": Method("DeleteTaskPushNotificationConfig", {1: _of_task("taskId")}),
    "ListTaskPushNotificationConfig": Method(
        "ListTaskPushNotificationConfigs", {1: _of_task("taskId"), 2: _NUMBER, 3: _SKIPPED}
    ),
    "GetAgentCard": Method("GetExtendedAgentCard", {}),
}
METHODS: Final[Mapping[tuple[str, str], Mapping[str, Method]]] = MappingProxyType(
    {("lf.a2a.v1.A2AService", "1.0"): _V1, ("a2a.v1.A2AService", "0.3"): _V03}
)


def is_path_of_service(path: str) -> bool:
    """True if ``path`` belongs to an A2A gRPC service."""
    return path.startswith(tuple(_SERVICES.values()))


def path_of(version: str) -> str:
    """Return the path of SendMessage in ``version``, to look up the route that serves a gRPC interface."""
    return _SERVICES[version] + "SendMessage"


def is_first_version(path: str) -> bool:
    """True if ``path`` belongs to the 0.3 service."""
    return path.startswith(_SERVICES[FIRST_VERSION])


class Call(NamedTuple):
    """A call of a known method. ``version`` is the A2A version of its service."""

    method: Method
    version: str


def call_of_path(path: str, query: bytes) -> Call:
    """Return the method called at ``path``.

    Raises:
        MessageRefused: OPERATION_REFUSED for an unknown service or method, or a path with a query.
    """
    match = None if query else _is_path(path)
    if match is not None:
        for (service, version), methods in METHODS.items():
            if match[1] == service and match[2] in methods:
                return Call(methods[match[2]], version)
    raise MessageRefused("an unknown method", reason=Reason.OPERATION_REFUSED)


def check_version(stated: Iterable[str], version: str) -> None:
    """Refuse a call whose ``A2A-Version`` values, if any, differ from the ``version`` of its service.

    Raises:
        MessageRefused: PROTOCOL_VERSION.
    """
    if not {*stated} <= {version}:
        raise MessageRefused("the A2A-Version differs from the service's", reason=Reason.PROTOCOL_VERSION)


def check_media(types: Iterable[bytes], codings: Iterable[bytes]) -> None:
    """Refuse a call whose content type is not gRPC with Protobuf, or whose ``grpc-encoding`` is not identity.

    Raises:
        MessageRefused: OPERATION_MALFORMED.
    """
    if [*types] not in ([b"application/grpc"], [b"application/grpc+proto"]):
        raise MessageRefused("the content type is neither application/grpc nor application/grpc+proto")
    if any(coding.strip().lower() != b"identity" for coding in codings):
        raise MessageRefused("the message is compressed")


def message_of(content: bytes, method: Method) -> RpcMessage:
    """Parse the content of a call to ``method`` into a message with the params of JSON-RPC.

    Raises:
        MessageRefused: OPERATION_MALFORMED unless it is exactly one unambiguous message of this method.
    """
    try:
        params = read(one_message(content), method.request, max_fields=MAX_FIELDS)
    except (GrpcMessageError, ProtobufError) as error:
        raise MessageRefused(str(error)) from None
    return RpcMessage(None, None, params)


# Field numbers are the same in both versions; other fields of an answer are ignored.
_IDS_OF_EVENT: Final[Schema] = {1: _text("taskId"), 2: _text("contextId")}
_ANSWER: Final[Schema] = {
    1: _message("task", {1: _text("id"), 2: _text("contextId")}),
    2: _message("message", {2: _text("contextId"), 3: _text("taskId")}),
    3: _message("statusUpdate", _IDS_OF_EVENT),
    4: _message("artifactUpdate", _IDS_OF_EVENT),
}


def shown_in_message(message: bytes) -> Shown:
    """Return the task and context ids in one message of an answer; ``NOTHING_SHOWN`` if unreadable."""
    try:
        return shown_of(read(message, _ANSWER, max_fields=_MAX_FIELDS_OF_ANSWER, others=True))
    except ProtobufError:
        return NOTHING_SHOWN


class GrpcAnswerReader:
    """Incremental reader of task and context ids in a gRPC answer; ``AnswerReader`` is its JSON counterpart.

    ``codings``: the values of ``grpc-encoding``. Reading stops at the first task, after ``MAX_EVENTS_READ`` messages,
    or at a message that is larger than ``MAX_READ_BYTES`` or cannot be decompressed.
    """

    __slots__ = ("_left", "_messages", "over")

    def __init__(self, codings: Sequence[bytes] = ()) -> None:
        self.over = False
        self._left = MAX_EVENTS_READ
        self._messages: GrpcMessages | None = GrpcMessages(max_bytes=MAX_READ_BYTES, codings=codings)

    def feed(self, data: bytes) -> list[Shown]:
        """Consume ``data``; return the ids found in the messages that it completes."""
        found: list[Shown] = []
        if self._messages is None:
            return found
        try:
            for message in self._messages.feed(data):
                shown = shown_in_message(message)
                self._left -= 1
                if shown != NOTHING_SHOWN:
                    found.append(shown)
                if shown.task is not None or not self._left:
                    self._stop()
                    break
        except GrpcMessageError:
            self._stop()
        return found

    def end(self) -> list[Shown]:
        """Stop reading; return an empty list, since ``feed`` reads each message when it is complete."""
        self._stop()
        return []

    def _stop(self) -> None:
        self.over = True
        self._messages = None
