"""Filter for A2A task lists in JSON, versions 0.3 and 1.0: removes the tasks that the reader may not see. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from delegation_core.a2a_tasks import MAX_ID
from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import one_spelling, without_marks
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError

_OF_ANSWER: Final = frozenset({"error", "id", "jsonrpc", "result"})
_TOTAL: Final = ("totalSize", "total_size")
_NEXT: Final = ("nextPageToken", "next_page_token")
_OF_LIST: Final = frozenset({"pageSize", "page_size", "tasks", *_NEXT, *_TOTAL})
_CONTEXT: Final = ("contextId", "context_id")
_OF_TASK: Final = frozenset({"id", *_CONTEXT})

MaySee = Callable[[str, str | None], bool]
"""Predicate: may the reader see a task, given its id and its context's id, if any?"""


def cut_tasks(document: bytes, may_see: MaySee, *, json_rpc: bool, first_page: bool, max_bytes: int) -> bytes:
    """Return an answer without the tasks for which ``may_see`` is false.

    A total is replaced by the number of tasks left if the list fits on one page, else removed: it would count tasks of
    others. ``first_page``: the request has no page token. ``json_rpc``: the list is the ``result`` member.

    Raises:
        Denied: LIST_UNREADABLE for anything but a strict JSON object of at most ``max_bytes`` whose tasks have ids.
    """
    try:
        answer = parse_message_object(document, max_bytes=max_bytes)
    except StrictJsonError as error:
        raise Denied(Reason.LIST_UNREADABLE, str(error)) from None
    if not json_rpc:
        return _document(answer, _cut(answer, may_see, first_page=first_page), document)
    result = _members(answer, _OF_ANSWER).get("result")
    if result is None and "error" in answer:
        return document
    if not isinstance(result, dict):
        raise Denied(Reason.LIST_UNREADABLE, "the result is not a list of tasks")
    return _document(answer, {**answer, "result": _cut(result, may_see, first_page=first_page)}, document)


def _cut(listed: dict[str, object], may_see: MaySee, *, first_page: bool) -> dict[str, object]:
    found = _members(listed, _OF_LIST)
    tasks = found.get("tasks")
    if not isinstance(tasks, list | None):
        raise Denied(Reason.LIST_UNREADABLE, "tasks is not an array")
    shown = [task for task in tasks or () if may_see(*_ids(task))]
    cut = {name: value for name, value in found.items() if name not in _TOTAL}
    if tasks is not None:
        cut["tasks"] = shown
    if len(cut) < len(found) and first_page and not any(found.get(name) for name in _NEXT):
        cut[_TOTAL[0]] = len(shown)
    return cut


def _ids(task: object) -> tuple[str, str | None]:
    found = _members(task, _OF_TASK) if isinstance(task, dict) else {}
    name, context = found.get("id"), next((found[one] for one in _CONTEXT if one in found), None)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID:
        raise Denied(Reason.LIST_UNREADABLE, "a task has no id, or one that is too long")
    if context is not None and not isinstance(context, str):
        raise Denied(Reason.LIST_UNREADABLE, "contextId is not a string")
    return name, context


def _members(members: dict[str, object], read: frozenset[str]) -> dict[str, object]:
    try:
        one_spelling(members, read, fold=without_marks)
    except Denied:
        raise Denied(Reason.LIST_UNREADABLE, "the name of a member is ambiguous") from None
    return members


def _document(before: dict[str, object], after: dict[str, object], document: bytes) -> bytes:
    """Serialize the answer ``after``; return ``document`` unchanged if ``after`` equals ``before``."""
    return document if after == before else json.dumps(after, ensure_ascii=False).encode()
