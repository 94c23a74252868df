"""Tasks of A2A: those that a request names, and the one that an answer makes. Pure; 0.3 and 1.0, both bindings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from sidecar.delegation.json_rpc import MessageRefused, RpcMessage, one_spelling, without_marks
from sidecar.delegation.strict_json import StrictJsonError, parse_message_object

MAX_TASK_ID: Final = 1024  # characters
MAX_READ_BYTES: Final = 1024 * 1024  # of an answer, or of one event

SENDS: Final = frozenset({"SendMessage", "SendStreamingMessage"})
_BY_ID: Final = frozenset({"GetTask", "CancelTask", "SubscribeToTask"})
_OF_CONFIGS: Final = frozenset(
    {
        "CreateTaskPushNotificationConfig",
        "DeleteTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
    }
)
# Of 0.3, where the task is ``id`` and the configuration has a name of its own.
_ID_IS_TASK: Final = frozenset(f"tasks/pushNotificationConfig/{what}" for what in ("get", "list", "delete"))
# In JSON of Protobuf each member may have either name; the official client of 0.3 uses the second in HTTP+JSON.
_TASK_ID: Final = ("taskId", "task_id")
_REFERENCES: Final = ("referenceTaskIds", "reference_task_ids")
_MESSAGE: Final = ("message", "request")  # of 0.3's Protobuf
_OF_MESSAGE: Final = frozenset({"contextId", "context_id", "messageId", "message_id", *_REFERENCES, *_TASK_ID})
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Named(NamedTuple):
    """The tasks that a request names. ``about_one``: it asks for a task that exists, and does nothing without one."""

    tasks: tuple[str, ...]
    about_one: bool


NOTHING_NAMED: Final = Named((), about_one=False)


def tasks_named(operation: str, message: RpcMessage | None, in_path: str | None) -> Named:
    """Return the tasks that a request names; ``in_path`` is that of a path of HTTP+JSON.

    Raises:
        MessageRefused: OPERATION_MALFORMED, a task's id is no short text, or stands there twice and differs.
    """
    params: Mapping[str, object] = {} if message is None else message.params
    message_id = None if message is None else message.id
    if operation in SENDS:
        return Named(tuple(_of_message(params, message_id)), about_one=False)
    if operation not in _BY_ID | _OF_CONFIGS:
        return NOTHING_NAMED
    if in_path is not None:
        also = _ids([_one(params, _TASK_ID)], message_id)
        if any(one != in_path for one in also):
            raise MessageRefused("the body names another task than the path", message_id=message_id)
        return Named((in_path,), about_one=True)
    method = None if message is None else message.method
    by_id = operation in _BY_ID or method in _ID_IS_TASK
    found = _ids([params.get("id") if by_id else _one(params, _TASK_ID)], message_id)
    return Named(tuple(found), about_one=True)


def _of_message(params: Mapping[str, object], message_id: str | int | None) -> list[str]:
    if params.keys() >= set(_MESSAGE):
        raise MessageRefused("two messages", message_id=message_id)
    sent = _one(params, _MESSAGE)
    if not isinstance(sent, dict):
        return []
    one_spelling(sent, _OF_MESSAGE, message_id=message_id, fold=without_marks)
    others = _one(sent, _REFERENCES) or []
    if not isinstance(others, list):
        raise MessageRefused("referenceTaskIds are not an array", message_id=message_id)
    return _ids([_one(sent, _TASK_ID), *others], message_id)


def _one(members: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((members[name] for name in names if name in members), None)


def _ids(values: list[object], message_id: str | int | None) -> list[str]:
    found = [value for value in values if value is not None and value != ""]
    if not all(isinstance(one, str) and len(one) <= MAX_TASK_ID for one in found):
        raise MessageRefused("a task's id is no text, or too long", message_id=message_id)
    return [str(one) for one in found]


def task_made(document: bytes) -> str | None:
    """Return the id of the task that an answer, or an event of a stream, shows; None: none, or it cannot be read."""
    try:
        answer = parse_message_object(document, max_bytes=MAX_READ_BYTES)
    except StrictJsonError:
        return None
    shown = answer.get("result", answer)
    if not isinstance(shown, dict):
        return None
    found = shown.get("id") if shown.get("kind") == "task" else shown.get("taskId")  # 0.3, which wraps nothing
    for name, member in (
        ("task", "id"),
        ("statusUpdate", "taskId"),
        ("artifactUpdate", "taskId"),
        ("message", "taskId"),
    ):
        inner = shown.get(name)
        if isinstance(inner, dict):
            found = found or inner.get(member)
    return found if isinstance(found, str) and 0 < len(found) <= MAX_TASK_ID else None


class TaskFinder:
    """Finds the task that an answer makes, whatever the pieces in which it arrives. ``events``: it is a stream of such.

    An answer, or an event, of more than ``MAX_READ_BYTES`` is not read.
    """

    __slots__ = ("_events", "_held", "over")

    def __init__(self, *, events: bool) -> None:
        self.over = False  # nothing more will be found
        self._events = events
        self._held = bytearray()

    def feed(self, data: bytes) -> str | None:
        """Read more of the answer. Return the task once, when it was found."""
        if self.over:
            return None
        searched = max(0, len(self._held) - 3)
        self._held += data
        if not self._events:
            if len(self._held) > MAX_READ_BYTES:
                self._stop()
            return None
        while (end := _EVENT_END.search(self._held, searched)) is not None:
            event = bytes(self._held[: end.start()])
            del self._held[: end.end()]
            searched = 0
            task = task_made(_data_of(event))
            if task is not None:
                self._stop()
                return task
        if len(self._held) > MAX_READ_BYTES:
            self._stop()
        return None

    def end(self) -> str | None:
        """Return the task of a whole answer, at its end."""
        found = None if self.over or self._events else task_made(bytes(self._held))
        self._stop()
        return found

    def _stop(self) -> None:
        self.over = True
        self._held.clear()


def _data_of(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)
