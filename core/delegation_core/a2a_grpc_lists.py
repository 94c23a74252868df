"""Filter for A2A task lists by gRPC (1.0 only), as ``a2a_lists`` is for JSON. Pure."""

from __future__ import annotations

from typing import Final

from delegation_core.a2a_lists import MaySee
from delegation_core.a2a_tasks import MAX_ID
from delegation_core.errors import Denied, Reason
from delegation_core.grpc_messages import GrpcMessageError, one_message, written
from delegation_core.protobuf import Field, Fields, Kind, ProtobufError, Schema, number_field, read_between

MAX_FIELDS: Final = 32_768  # of a list and its tasks
_TASKS: Final = 1
_NEXT: Final = 2
_TOTAL: Final = 4
_LIST: Final[Schema] = {
    _TASKS: Field(Kind.OPAQUE, many=True),
    _NEXT: Field(Kind.TEXT, "next"),
    3: Field(Kind.NUMBER),
    _TOTAL: Field(Kind.NUMBER),
}
_TASK: Final[Schema] = {1: Field(Kind.TEXT, "id"), 2: Field(Kind.TEXT, "context")}


def cut_tasks(content: bytes, may_see: MaySee, *, first_page: bool) -> bytes:
    """Return the content of an answer without the tasks for which ``may_see`` is false.

    A total is replaced by the number of tasks left if the list fits on one page, else removed. ``first_page``: the
    request has no page token.

    Raises:
        Denied: LIST_UNREADABLE unless the content is one strict message whose tasks all have ids.
    """
    try:
        made = _cut(one_message(content), may_see, first_page=first_page)
    except (GrpcMessageError, ProtobufError) as error:
        raise Denied(Reason.LIST_UNREADABLE, str(error)) from None
    return written(made)


def _cut(message: bytes, may_see: MaySee, *, first_page: bool) -> bytes:
    fields = Fields(message, max_fields=MAX_FIELDS)
    listed = read_between(fields, 0, len(message), _LIST, others=True)
    kept: list[bytes] = []
    shown, total_at = 0, None
    for number, _, tag, start, end in fields.between(0, len(message)):
        if number == _TOTAL:
            total_at = len(kept)
            continue
        if number == _TASKS:
            if not _is_shown(read_between(fields, start, end, _TASK, others=True), may_see):
                continue
            shown += 1
        kept.append(message[tag:end])
    if total_at is not None and shown and first_page and not listed.get("next"):
        kept.insert(total_at, number_field(_TOTAL, shown))
    return b"".join(kept)


def _is_shown(task: dict[str, object], may_see: MaySee) -> bool:
    name, context = task.get("id"), task.get("context")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID:
        raise Denied(Reason.LIST_UNREADABLE, "a task has no id, or one that is too long")
    return may_see(name, str(context) if context else None)
