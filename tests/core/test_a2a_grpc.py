"""A2A by gRPC: operations, what a message names, and what an answer shows; of both versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from delegation_core.a2a import OPERATIONS, is_first_page
from delegation_core.a2a_grpc import (
    MAX_FIELDS,
    METHODS,
    GrpcAnswerReader,
    call_of_path,
    check_media,
    check_version,
    is_first_version,
    is_path_of_service,
    message_of,
    shown_in_message,
)
from delegation_core.a2a_tasks import MAX_EVENTS_READ, MAX_READ_BYTES, NOTHING_SHOWN, Named, Shown, tasks_named
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import written
from delegation_core.json_rpc import MessageRefused
from delegation_core.protobuf import Schema
from delegation_core.protobuf import length_field as field
from delegation_core.protobuf import number_field as number
from delegation_core.push_urls import check_push_urls, parse_push_url

V1, V03 = "/lf.a2a.v1.A2AService/", "/a2a.v1.A2AService/"
HERE = (parse_push_url("https://hooks.acme.example/a2a"),)


def params_of(path: str, message: bytes) -> tuple[str, dict[str, object]]:
    call = call_of_path(path, b"")
    return call.method.operation, dict(message_of(written(message), call.method).params)


def named_in(path: str, message: bytes) -> Named:
    call = call_of_path(path, b"")
    return tasks_named(call.method.operation, message_of(written(message), call.method), None)


def places_of_tasks(schema: Schema, wrap: Callable[[bytes], bytes] = bytes) -> Iterator[bytes]:
    """Yield a message for each field of a schema that holds a task's id: the field alone, with the task ``t``."""
    for at, one in schema.items():
        if one.schema is not None:
            yield from places_of_tasks(one.schema, lambda inner, at=at: wrap(field(at, inner)))  # type: ignore[misc]
        elif one.name in {"id", "taskId", "referenceTaskIds"}:
            yield wrap(field(at, "tasks/t" if one.convert else "t"))


@pytest.mark.parametrize(
    "path",
    [f"/{service}/{method}" for (service, _), methods in METHODS.items() for method in methods],
)
def test_a_task_is_found_in_each_field_that_holds_one(path: str) -> None:
    method = call_of_path(path, b"").method
    messages = [*places_of_tasks(method.request)]
    assert bool(messages) is (method.operation not in {"ListTasks", "GetExtendedAgentCard"})
    for message in messages:
        assert named_in(path, message).tasks == ("t",)


@pytest.mark.parametrize(
    ("path", "operation", "version"),
    [
        (f"{V1}SendMessage", "SendMessage", "1.0"),
        (f"{V1}SubscribeToTask", "SubscribeToTask", "1.0"),
        (f"{V1}ListTaskPushNotificationConfigs", "ListTaskPushNotificationConfigs", "1.0"),
        (f"{V03}SendMessage", "SendMessage", "0.3"),
        (f"{V03}TaskSubscription", "SubscribeToTask", "0.3"),
        (f"{V03}ListTaskPushNotificationConfig", "ListTaskPushNotificationConfigs", "0.3"),
    ],
)
def test_a_method_is_the_operation_of_the_other_bindings(path: str, operation: str, version: str) -> None:
    call = call_of_path(path, b"")
    assert (call.method.operation, call.version) == (operation, version)


@pytest.mark.parametrize(
    "path",
    [
        f"{V1}TaskSubscription",  # of the other version
        f"{V03}SubscribeToTask",
        f"{V1}sendMessage",
        f"{V1}SendMessage/",
        f"/x{V1}SendMessage",
        f"{V1}message/send",
        "/lf.a2a.v2.A2AService/SendMessage",
        "/grpc.health.v1.Health/Check",
        "/a2a/v1/A2AService/SendMessage",
        "/",
    ],
)
def test_an_unknown_method_is_refused_as_an_unknown_operation(path: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        call_of_path(path, b"")
    assert refused.value.reason is Reason.OPERATION_REFUSED


def test_a_call_has_no_query() -> None:
    with pytest.raises(MessageRefused):
        call_of_path(f"{V1}SendMessage", b"A2A-Version=1.0")


def test_the_service_says_the_version_and_no_field_may_say_another() -> None:
    check_version([], "1.0")
    check_version(["1.0"], "1.0")
    for stated in (["0.3"], ["1.0", "0.3"], ["1.1"], [""]):
        with pytest.raises(MessageRefused) as refused:
            check_version(stated, "1.0")
        assert refused.value.reason is Reason.PROTOCOL_VERSION


def test_a_message_is_protobuf_and_not_compressed() -> None:
    check_media([b"application/grpc"], [])
    check_media([b"application/grpc+proto"], [b"identity"])
    for types, codings in (
        ([b"application/grpc+json"], []),
        ([b"application/grpc", b"application/grpc"], []),
        ([b"application/grpc;x=y"], []),
        ([b"application/grpc"], [b"gzip"]),
        ([b"application/grpc"], [b"identity", b"gzip"]),
    ):
        with pytest.raises(MessageRefused) as refused:
            check_media(types, codings)
        assert refused.value.reason is Reason.OPERATION_MALFORMED


def test_a_refused_call_has_the_form_of_its_service_whatever_its_method() -> None:
    assert is_first_version(f"{V03}Unknown")
    assert not is_first_version(f"{V1}Unknown")


def test_only_the_services_own_their_paths() -> None:
    assert is_path_of_service(f"{V1}Any")
    assert is_path_of_service(f"{V03}Any")
    assert not is_path_of_service("/a2a.v1.A2AServices/Any")


NAME = field(1, "tasks/7")
CONFIG = field(1, "tasks/7/pushNotificationConfigs/c")


@pytest.mark.parametrize(
    ("path", "message", "tasks"),
    [
        (f"{V1}GetTask", field(1, "tenant") + field(2, "7") + number(3, 5), ("7",)),
        (f"{V1}CancelTask", field(2, "7") + field(3, b"\xff"), ("7",)),
        (f"{V1}SubscribeToTask", field(2, "7"), ("7",)),
        (f"{V1}CreateTaskPushNotificationConfig", field(3, "7") + field(4, "https://x"), ("7",)),
        (f"{V1}GetTaskPushNotificationConfig", field(2, "7") + field(3, "8"), ("7",)),
        (f"{V1}DeleteTaskPushNotificationConfig", field(2, "7") + field(3, "8"), ("7",)),
        (f"{V1}ListTaskPushNotificationConfigs", field(1, "7") + field(4, "tenant"), ("7",)),
        (f"{V1}GetTask", b"", ()),
        (f"{V1}GetTask", field(2, ""), ()),
        (f"{V03}GetTask", NAME + number(2, 5), ("7",)),
        (f"{V03}GetTask", field(1, ""), ()),
        (f"{V03}CancelTask", NAME, ("7",)),
        (f"{V03}TaskSubscription", NAME, ("7",)),
        (f"{V03}CreateTaskPushNotificationConfig", NAME + field(2, "c") + field(3, CONFIG), ("7",)),
        (f"{V03}CreateTaskPushNotificationConfig", NAME + field(3, field(1, "tasks/8")), ("7", "8")),
        (f"{V03}CreateTaskPushNotificationConfig", field(1, "tasks/7/pushNotificationConfigs"), ("7",)),
        (f"{V03}GetTaskPushNotificationConfig", CONFIG, ("7",)),
        (f"{V03}DeleteTaskPushNotificationConfig", CONFIG, ("7",)),
        (f"{V03}ListTaskPushNotificationConfig", NAME, ("7",)),
    ],
)
def test_a_message_names_its_task(path: str, message: bytes, tasks: tuple[str, ...]) -> None:
    named = named_in(path, message)
    assert (named.tasks, named.about_one) == (tasks, True)


@pytest.mark.parametrize(
    "name", ["7", "/tasks/7", "tasks/", "tasks/7/x", "tasks/7/pushNotificationConfigs/c/d", "task/7"]
)
def test_a_resource_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        named_in(f"{V03}GetTask", field(1, name))
    assert refused.value.reason is Reason.OPERATION_MALFORMED


def test_a_message_to_the_agent_names_its_context_its_task_and_those_it_refers_to() -> None:
    sent = field(1, "m") + field(2, "c") + field(3, "7") + number(4, 1) + field(5, b"\x0a\1x") * 2
    config = field(1, "text") + field(2, field(3, "9") + field(4, "https://x"))
    v1 = field(2, sent + field(8, "5") + field(8, "6")) + field(3, config)
    assert named_in(f"{V1}SendMessage", v1) == Named(("7", "5", "6", "9"), contexts=("c",), differs=True)
    assert named_in(f"{V1}SendStreamingMessage", field(2, field(2, "c"))) == Named(contexts=("c",), begins=True)
    assert named_in(f"{V03}SendMessage", field(1, sent)) == Named(("7",), contexts=("c",))
    assert named_in(f"{V03}SendStreamingMessage", b"") == Named(begins=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{V1}SendMessage", field(2, field(2, "c") * 2)),
        (f"{V1}SendMessage", field(2, b"") * 2),
        (f"{V1}SendMessage", field(2, field(9, "7"))),  # no field of its version
        (f"{V03}SendMessage", field(1, field(8, "7"))),
        (f"{V1}SendMessage", field(3, field(5, "x"))),
        (f"{V1}SendMessage", field(3, field(2, field(7, "https://x")))),
        (f"{V1}SendMessage", field(2, number(3, 7))),
        (f"{V1}GetTask", field(2, "7") + field(2, "8")),
        (f"{V1}GetTask", field(2, "7") + field(4, "8")),
        (f"{V1}GetTask", field(2, "x" * 1025)),
        (f"{V1}SendMessage", field(2, field(5, b"") * MAX_FIELDS)),
    ],
)
def test_a_message_that_could_be_read_in_two_ways_is_refused(path: str, message: bytes) -> None:
    with pytest.raises(MessageRefused) as refused:
        named_in(path, message)
    assert refused.value.reason is Reason.OPERATION_MALFORMED


def test_a_message_may_have_as_many_parts_as_it_may_have_fields() -> None:
    assert named_in(f"{V1}SendMessage", field(2, field(5, b"") * (MAX_FIELDS - 1))).begins


def test_a_list_names_its_context_and_its_page() -> None:
    operation, params = params_of(f"{V1}ListTasks", field(2, "c") + number(4, 50) + field(5, "next"))
    assert (operation, params) == ("ListTasks", {"contextId": "c", "pageToken": "next"})
    assert named_in(f"{V1}ListTasks", field(2, "c")) == Named(contexts=("c",))
    assert is_first_page(params_of(f"{V1}ListTasks", b"")[1].items())
    assert not is_first_page(params.items())


def test_two_messages_or_a_compressed_one_are_refused() -> None:
    method = call_of_path(f"{V1}GetTask", b"").method
    for content in (written(field(2, "7")) * 2, b"\1" + written(field(2, "7"))[1:], b""):
        with pytest.raises(MessageRefused) as refused:
            message_of(content, method)
        assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{V1}CreateTaskPushNotificationConfig", "%b"),
        (f"{V1}SendMessage", "3 2 %b"),
        (f"{V1}SendStreamingMessage", "3 2 %b"),
        (f"{V03}CreateTaskPushNotificationConfig", "3 2 %b"),
        (f"{V03}SendMessage", "2 2 %b"),
        (f"{V03}SendStreamingMessage", "2 2 %b"),
    ],
)
def test_a_url_for_notifications_is_found_where_each_message_has_it(path: str, message: str) -> None:
    def check(url: str) -> None:
        made = field(4 if path.startswith(V1) else 2, url)
        for one in reversed(message.split()[:-1]):
            made = field(int(one), made)
        operation, params = params_of(path, made)
        check_push_urls(operation, params, HERE)

    check("https://hooks.acme.example/a2a/1")
    with pytest.raises(Denied) as refused:
        check("https://evil.example/")
    assert refused.value.reason is Reason.PUSH_URL_REFUSED


def test_every_operation_of_a_method_is_one_of_a2a() -> None:
    for methods in METHODS.values():
        assert {method.operation for method in methods.values()} <= OPERATIONS


TASK = field(1, field(1, "7") + field(2, "c") + field(3, b"\x08\1"))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (TASK, Shown("7", "c")),
        (field(2, field(2, "c") + field(1, "m")), Shown(None, "c")),
        (field(2, field(3, "7")), Shown("7", None)),
        (field(3, field(1, "7") + field(2, "c") + number(4, 1)), Shown("7", "c")),
        (field(4, field(1, "7") + field(2, "c")), Shown("7", "c")),
        (b"", NOTHING_SHOWN),
        (b"\xff", NOTHING_SHOWN),
        (TASK * 2, NOTHING_SHOWN),
        (field(1, field(1, "7") * 2), NOTHING_SHOWN),
        (field(1, field(1, "x" * 1025)), NOTHING_SHOWN),
        (TASK + field(9, b"later"), Shown("7", "c")),
    ],
)
def test_an_answer_shows_its_task_and_its_context(message: bytes, shown: Shown) -> None:
    assert shown_in_message(message) == shown


def test_an_answer_is_read_up_to_its_task_however_it_arrives() -> None:
    data = written(field(2, field(2, "c"))) + written(b"") + written(TASK) + written(TASK)
    for size in (1, 3, len(data)):
        reader = GrpcAnswerReader()
        found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert (found, reader.over) == ([Shown(None, "c"), Shown("7", "c")], True)
        assert reader.end() == []


@pytest.mark.parametrize("size", [5, 4096, 2**20])
@pytest.mark.parametrize(("empty", "read"), [(MAX_EVENTS_READ - 1, True), (MAX_EVENTS_READ, False)])
def test_only_the_first_messages_of_an_answer_are_read_however_they_arrive(
    empty: int, size: int, *, read: bool
) -> None:
    data = written(b"") * empty + written(TASK)
    reader = GrpcAnswerReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert (len(found), reader.over) == (int(read), True)


@pytest.mark.parametrize("head", [b"\1\0\0\0\0", b"\0" + (MAX_READ_BYTES + 1).to_bytes(4, "big")])
def test_nothing_is_read_after_a_message_that_is_compressed_or_too_long(head: bytes) -> None:
    reader = GrpcAnswerReader()
    assert reader.feed(written(field(2, field(2, "c"))) + head) == [Shown(None, "c")]
    assert reader.over
    assert reader.feed(written(TASK)) == []
