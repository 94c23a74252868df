"""Tasks and contexts of A2A in requests and answers. Pure.

Of 0.3 and 1.0, in both bindings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from sidecar.delegation.json_rpc import MessageRefused, RpcMessage, one_spelling, without_marks
from sidecar.delegation.strict_json import StrictJsonError, parse_message_object

MAX_ID: Final = 1024  # characters, of a task or a context
MAX_READ_BYTES: Final = 1024 * 1024  # of an answer, or of one event
MAX_EVENTS_READ: Final = 1024  # of an answer: its task is in one of the first
MAX_BESIDE: Final = 1024  # texts of a request that may name a task where no version has one

LISTS: Final = "ListTasks"
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
_MAY_NAME_ONE: Final = frozenset({"id", "name", "parent", "referencetaskids", "taskid"})
_RESOURCES: Final = frozenset({"name", "parent"})  # of 0.3's Protobuf, where a task is ``tasks/ID``
_CONTENT: Final = frozenset({"content", "parts"})  # what users write to agents: no id of the protocol is there
_in_resource: Final = re.compile(r"(?:^|/)tasks/([^/]+)").findall
_CONTEXT_ID: Final = ("contextId", "context_id")
_REFERENCES: Final = ("referenceTaskIds", "reference_task_ids")
_MESSAGE: Final = ("message", "request")  # of 0.3's Protobuf
_OF_MESSAGE: Final = frozenset({"messageId", "message_id", *_CONTEXT_ID, *_REFERENCES, *_TASK_ID})
# What an answer wraps, and the names of its task's id there.
_PAYLOADS: Final = (
    (("task",), ("id",)),
    (("statusUpdate", "status_update"), _TASK_ID),
    (("artifactUpdate", "artifact_update"), _TASK_ID),
    (("message", "msg"), _TASK_ID),
)
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Named(NamedTuple):
    """The tasks and contexts that a request names.

    ``about_one``: it asks for a task that exists, and does nothing without one. ``begins``: it is a message that
    belongs to no task, so its answer may show a new one. ``beside``: texts in members where no version has a task's id,
    and an agent may read one all the same. ``differs``: two places name its one task, and disagree.
    """

    tasks: tuple[str, ...] = ()
    about_one: bool = False
    contexts: tuple[str, ...] = ()
    begins: bool = False
    beside: tuple[str, ...] = ()
    differs: bool = False


NOTHING_NAMED: Final = Named()


def tasks_named(
    operation: str, message: RpcMessage | None, in_path: str | None, query: Iterable[tuple[str, str]] = ()
) -> Named:
    """Return the tasks and contexts that a request names; ``in_path``: the task in a path of HTTP+JSON.

    Raises:
        MessageRefused: OPERATION_MALFORMED, an id is no short text, or stands there twice and differs.
    """
    params: Mapping[str, object] = {} if message is None else message.params
    message_id = None if message is None else message.id
    query = [*query]
    if operation in SENDS:
        return _of_message(params, query, message_id)
    if operation not in _BY_ID | _OF_CONFIGS:
        contexts = [_one(params, _CONTEXT_ID), *_in_query(query, message_id)] if operation == LISTS else []
        return Named(contexts=_ids(contexts, message_id), beside=_beside((), params, query, message_id))
    nested = [*_nested(params)] if operation == "CreateTaskPushNotificationConfig" else []
    by_id = operation in _BY_ID
    if in_path is not None:
        also = _ids([_one(params, _TASK_ID), *nested], message_id)
        if any(one != in_path for one in also):
            raise MessageRefused("the body names another task than the path", message_id=message_id)
        tasks: tuple[str, ...] = (in_path,)
    else:
        by_id = by_id or (message is not None and message.method in _ID_IS_TASK)
        tasks = _ids([params.get("id") if by_id else _one(params, _TASK_ID), *nested], message_id)
    beside = _beside(tasks, params, query, message_id)
    differs = len(tasks) > 1 or _differs(tasks, (*params.items(), *query), id_is_task=by_id)
    return Named(tasks, about_one=True, beside=beside, differs=differs)


def _beside(
    tasks: tuple[str, ...],
    params: Mapping[str, object],
    query: Iterable[tuple[str, str]],
    message_id: str | int | None,
) -> tuple[str, ...]:
    """Return other texts that may be a task's id, or the name of its resource (``tasks/ID/...``), with its segments.

    Raises:
        MessageRefused: OPERATION_MALFORMED, they are too many, or one is too long.
    """
    found: dict[str, None] = {}
    for text in (*_texts(params), *(value for name, value in query if without_marks(name) in _MAY_NAME_ONE)):
        if len(text) > 4 * MAX_ID:
            raise MessageRefused("a member that may name a task is too long", message_id=message_id)
        found.update((part, None) for part in (text, *text.split("/")) if 0 < len(part) <= MAX_ID)
        if len(found) > MAX_BESIDE + len(tasks):
            raise MessageRefused("too many members that may name a task", message_id=message_id)
    return tuple(one for one in found if one not in tasks)


def _texts(value: object, *, may_name: bool = False) -> Iterator[str]:
    """Yield the texts of all members that may name a task, at any depth but in what users write."""
    if isinstance(value, dict):
        for name, member in value.items():
            folded = without_marks(name)
            if folded not in _CONTENT:
                yield from _texts(member, may_name=folded in _MAY_NAME_ONE)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, may_name=may_name)
    elif may_name and isinstance(value, str | int):  # to JavaScript 7 and "7" are one key
        yield str(value)


def _differs(tasks: tuple[str, ...], members: Iterable[tuple[str, object]], *, id_is_task: bool) -> bool:
    """True if a member that can only mean the task of a request names another one."""
    for name, value in members if tasks else ():
        folded = without_marks(name)
        if folded == "taskid" or (folded == "id" and id_is_task):
            if value is not None and value != "" and value not in tasks:
                return True
        elif folded in _RESOURCES and isinstance(value, str) and not {*_in_resource(value)} <= {*tasks}:
            return True
    return False


def _of_message(params: Mapping[str, object], query: list[tuple[str, str]], message_id: str | int | None) -> Named:
    if params.keys() >= set(_MESSAGE):
        raise MessageRefused("two messages", message_id=message_id)
    sent = _one(params, _MESSAGE)
    if not isinstance(sent, dict):
        sent = {}
    one_spelling(sent, _OF_MESSAGE, message_id=message_id, fold=without_marks)
    others = _one(sent, _REFERENCES) or []
    if not isinstance(others, list):
        raise MessageRefused("referenceTaskIds are not an array", message_id=message_id)
    # Beside the message no version has ids but in its configuration; an agent may read them all the same.
    own = _ids([_one(sent, _TASK_ID), _one(params, _TASK_ID)], message_id)
    configured = _ids(_nested(params.get("configuration")), message_id)
    tasks = _ids([*own, *others, *configured], message_id)
    contexts = _ids([_one(sent, _CONTEXT_ID), _one(params, _CONTEXT_ID)], message_id)
    beside = _beside(tasks, params, query, message_id)
    places = (*params.items(), *sent.items(), *query, *(("taskId", one) for one in configured))
    differs = len(own) > 1 or _differs(own, places, id_is_task=False)
    return Named(tasks, contexts=contexts, begins=not own, beside=beside, differs=differs)


def _in_query(query: Iterable[tuple[str, str]], message_id: str | int | None) -> list[object]:
    found: list[object] = []
    for name, value in query:
        if without_marks(name) == without_marks(_CONTEXT_ID[0]):
            if found or name not in _CONTEXT_ID:
                raise MessageRefused("two contexts, or one in another spelling", message_id=message_id)
            found.append(value)
    return found


def _nested(value: object) -> Iterator[object]:
    """Yield every task's id in a configuration, wherever a version has it and in any spelling."""
    if isinstance(value, dict):
        for name, member in value.items():
            if without_marks(name) == without_marks(_TASK_ID[0]):
                yield member
            else:
                yield from _nested(member)
    elif isinstance(value, list):
        for one in value:
            yield from _nested(one)


def _one(members: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((members[name] for name in names if name in members), None)


def _ids(values: Iterable[object], message_id: str | int | None) -> tuple[str, ...]:
    found = [value for value in values if value is not None and value != ""]
    if not all(isinstance(one, str) and len(one) <= MAX_ID for one in found):
        raise MessageRefused("the id of a task or context is no text, or too long", message_id=message_id)
    return tuple(dict.fromkeys(map(str, found)))


class Shown(NamedTuple):
    """The task and the context of an answer, or of an event of a stream. ``failed``: it is an error."""

    task: str | None = None
    context: str | None = None
    failed: bool = False


NOTHING_SHOWN: Final = Shown()


def shown_in(document: bytes) -> Shown:
    """Return the task and context of an answer; empty if unreadable."""
    try:
        answer = parse_message_object(document, max_bytes=MAX_READ_BYTES)
    except StrictJsonError:
        return NOTHING_SHOWN
    result = answer.get("result", answer)
    if answer.get("error") is not None and (result is None or result is answer):
        return Shown(failed=True)
    return shown_of(result) if isinstance(result, dict) else NOTHING_SHOWN


def shown_of(result: Mapping[str, object]) -> Shown:
    """Return the task and context of an answer's result."""
    task = result.get("id") if result.get("kind") == "task" else _one(result, _TASK_ID)  # 0.3, which wraps nothing
    context = _one(result, _CONTEXT_ID)
    for names, of_task in _PAYLOADS:
        inner = _one(result, names)
        if isinstance(inner, dict):
            task = task or _one(inner, of_task)
            context = context or _one(inner, _CONTEXT_ID)
    return Shown(_text(task), _text(context))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID else None


class AnswerReader:
    """Finds the task of an answer that arrives in pieces. ``events``: the answer is an event stream.

    An answer, or an event, of more than ``MAX_READ_BYTES`` is not read, and nothing after ``MAX_EVENTS_READ``.
    """

    __slots__ = ("_events", "_held", "_left", "over")

    def __init__(self, *, events: bool) -> None:
        self.over = False  # nothing more is read
        self._events = events
        self._held = bytearray()
        self._left = MAX_EVENTS_READ

    def feed(self, data: bytes) -> list[Shown]:
        """Consume more of the answer; return the tasks and contexts of its complete events."""
        found: list[Shown] = []
        if self.over:
            return found
        searched = max(0, len(self._held) - 3)
        self._held += data
        if not self._events:
            if len(self._held) > MAX_READ_BYTES:
                self._stop()
            return found
        while (end := _EVENT_END.search(self._held, searched)) is not None:
            event = bytes(self._held[: end.start()])
            del self._held[: end.end()]
            searched = 0
            shown = shown_in(_data_of(event))
            self._left -= 1
            if shown != NOTHING_SHOWN:
                found.append(shown)
            if shown.task is not None or not self._left:
                self._stop()
        if len(self._held) > MAX_READ_BYTES:
            self._stop()
        return found

    def end(self) -> list[Shown]:
        """Return the task and context of a whole answer, at its end."""
        shown = NOTHING_SHOWN if self.over or self._events else shown_in(bytes(self._held))
        self._stop()
        return [] if shown == NOTHING_SHOWN else [shown]

    def _stop(self) -> None:
        self.over = True
        self._held.clear()


def _data_of(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)
