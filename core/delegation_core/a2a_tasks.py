"""Finds A2A task and context ids in requests and answers, for versions 0.3 and 1.0 in all bindings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from delegation_core.json_rpc import MessageRefused, RpcMessage, one_spelling, without_marks
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError

MAX_ID: Final = 1024  # characters, of a task or a context
MAX_READ_BYTES: Final = 1024 * 1024  # of an answer, or of one event
MAX_EVENTS_READ: Final = 1024  # events of one answer; the task is in one of the first
MAX_BESIDE: Final = 1024  # texts in a request that may be task ids although no version defines them as such

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
# Methods of 0.3 whose ``id`` is the task; the configuration has a member of its own.
_ID_IS_TASK: Final = frozenset(f"tasks/pushNotificationConfig/{what}" for what in ("get", "list", "delete"))
# Protobuf's JSON allows either name; the official client of 0.3 uses the second in HTTP+JSON.
_TASK_ID: Final = ("taskId", "task_id")
_MAY_NAME_ONE: Final = frozenset({"id", "name", "parent", "referencetaskids", "taskid"})
_RESOURCES: Final = frozenset({"name", "parent"})  # of 0.3's Protobuf, where a task is ``tasks/ID``
_CONTENT: Final = frozenset({"content", "parts"})  # user content, which has no protocol ids
_in_resource: Final = re.compile(r"(?:^|/)tasks/([^/]+)").findall
_CONTEXT_ID: Final = ("contextId", "context_id")
_REFERENCES: Final = ("referenceTaskIds", "reference_task_ids")
_MESSAGE: Final = ("message", "request")  # of 0.3's Protobuf
_OF_MESSAGE: Final = frozenset({"messageId", "message_id", *_CONTEXT_ID, *_REFERENCES, *_TASK_ID})
# Members that wrap the payload of an answer, and the names of the task id in each.
_PAYLOADS: Final = (
    (("task",), ("id",)),
    (("statusUpdate", "status_update"), _TASK_ID),
    (("artifactUpdate", "artifact_update"), _TASK_ID),
    (("message", "msg"), _TASK_ID),
)
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Named(NamedTuple):
    """Task and context ids in a request.

    ``about_one``: the operation needs one existing task. ``begins``: the message names no task of its own, so its
    answer may create one. ``beside``: other texts that an agent might read as a task id although no version defines
    them so. ``differs``: two places name the task of the request and disagree.
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
    """Return the ids in a request for ``operation``; ``in_path``: the task id in an HTTP+JSON path.

    Raises:
        MessageRefused: OPERATION_MALFORMED if an id is no string of at most ``MAX_ID``, the body contradicts the path,
            or members that may be ids are ambiguous, too many or too long.
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
            raise MessageRefused("the body and the path name different tasks", message_id=message_id)
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
    """Return further texts that may be a task id or a resource name (``tasks/ID/...``), whole and by segment.

    Raises:
        MessageRefused: OPERATION_MALFORMED if one is longer than 4 * ``MAX_ID``, or there are more than ``MAX_BESIDE``.
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
    """Yield the texts of all members that may name a task, at any depth outside user content."""
    if isinstance(value, dict):
        for name, member in value.items():
            folded = without_marks(name)
            if folded not in _CONTENT:
                yield from _texts(member, may_name=folded in _MAY_NAME_ONE)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, may_name=may_name)
    elif may_name and isinstance(value, str | int):  # JavaScript uses the same property key for 7 and "7"
        yield str(value)


def _differs(tasks: tuple[str, ...], members: Iterable[tuple[str, object]], *, id_is_task: bool) -> bool:
    """True if a member that must name the request's own task names one outside ``tasks``."""
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
        raise MessageRefused("the params have two messages", message_id=message_id)
    sent = _one(params, _MESSAGE)
    if not isinstance(sent, dict):
        sent = {}
    one_spelling(sent, _OF_MESSAGE, message_id=message_id, fold=without_marks)
    others = _one(sent, _REFERENCES) or []
    if not isinstance(others, list):
        raise MessageRefused("referenceTaskIds is not an array", message_id=message_id)
    # Ids outside the message and its configuration are in no version, but an agent may read them.
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
                raise MessageRefused("the query has contextId twice, or in another spelling", message_id=message_id)
            found.append(value)
    return found


def _nested(value: object) -> Iterator[object]:
    """Yield the value of every ``taskId`` in ``value``, at any depth and in any spelling."""
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
        raise MessageRefused("a task or context id is not a string, or is too long", message_id=message_id)
    return tuple(dict.fromkeys(map(str, found)))


class Shown(NamedTuple):
    """Task and context ids of an answer, or of one event of a stream. ``failed``: it is a JSON-RPC error."""

    task: str | None = None
    context: str | None = None
    failed: bool = False


NOTHING_SHOWN: Final = Shown()


def shown_in(document: bytes) -> Shown:
    """Return the ids in an answer; ``NOTHING_SHOWN`` if it is not a strict JSON object."""
    try:
        answer = parse_message_object(document, max_bytes=MAX_READ_BYTES)
    except StrictJsonError:
        return NOTHING_SHOWN
    result = answer.get("result", answer)
    if answer.get("error") is not None and (result is None or result is answer):
        return Shown(failed=True)
    return shown_of(result) if isinstance(result, dict) else NOTHING_SHOWN


def shown_of(result: Mapping[str, object]) -> Shown:
    """Return the ids in the result of an answer, plain (0.3) or wrapped."""
    task = result.get("id") if result.get("kind") == "task" else _one(result, _TASK_ID)  # 0.3 does not wrap
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
    """Incremental reader of task and context ids in a JSON answer. ``events``: the answer is an event stream.

    Reading stops at the first task of a stream, after ``MAX_EVENTS_READ`` events, or beyond ``MAX_READ_BYTES`` of
    unread data.
    """

    __slots__ = ("_events", "_held", "_left", "over")

    def __init__(self, *, events: bool) -> None:
        self.over = False  # True: further data is ignored
        self._events = events
        self._held = bytearray()
        self._left = MAX_EVENTS_READ

    def feed(self, data: bytes) -> list[Shown]:
        """Consume ``data``; return the ids of the events that it completes (none unless ``events``)."""
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
        """Stop reading; return the ids of a complete answer that is not an event stream."""
        shown = NOTHING_SHOWN if self.over or self._events else shown_in(bytes(self._held))
        self._stop()
        return [] if shown == NOTHING_SHOWN else [shown]

    def _stop(self) -> None:
        self.over = True
        self._held.clear()


def _data_of(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)
