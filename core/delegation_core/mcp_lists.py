"""Filter for MCP lists of tools, prompts and resources: removes the items that the reader may not call. Pure.

A message from which nothing is removed stays unchanged, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import one_spelling
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError

FILTERED: Final = frozenset({"tools/list", "prompts/list", "resources/list"})

# Member of a result: the method that uses its items, and the member that names an item.
_LISTS: Final = {
    "tools": ("tools/call", "name"),
    "prompts": ("prompts/get", "name"),
    "resources": ("resources/read", "uri"),
}
_MEMBERS: Final = frozenset({"result", *_LISTS})
_NAMES: Final = frozenset({"name", "uri"})

MayCall = Callable[[str], bool]
"""Predicate: may the reader request the operation with this key?"""


def cut_lists(document: bytes, may_call: MayCall, *, max_bytes: int) -> bytes:
    """Return a message without the list items for which ``may_call`` is false.

    A list's ``cacheScope`` becomes private, since the list depends on its reader (MCP 2026-07-28).

    Raises:
        Denied: LIST_UNREADABLE for anything but a strict JSON object of at most ``max_bytes`` with readable lists.
    """
    try:
        message = parse_message_object(document, max_bytes=max_bytes)
    except StrictJsonError as error:
        raise Denied(Reason.LIST_UNREADABLE, str(error)) from None
    result = _members(message).get("result")
    if not isinstance(result, dict):
        return document
    lists = {member: _members(result)[member] for member in _LISTS if member in result}
    kept = {member: _kept(items, *_LISTS[member], may_call) for member, items in lists.items()}
    private = {"cacheScope": "private"} if lists and "cacheScope" in result else {}
    if kept == lists and result | private == result:
        return document
    return json.dumps({**message, "result": {**result, **kept, **private}}, ensure_ascii=False).encode()


def _kept(items: object, method: str, member: str, may_call: MayCall) -> list[object]:
    if not isinstance(items, list):
        raise Denied(Reason.LIST_UNREADABLE, "the list is not an array")
    return [item for item in items if (name := _name(item, member)) and may_call(f"{method}:{name}")]


def _name(item: object, member: str) -> str:
    if not isinstance(item, dict):
        raise Denied(Reason.LIST_UNREADABLE, "an item has no name")
    name = _members(item, _NAMES).get(member)
    if not isinstance(name, str):
        raise Denied(Reason.LIST_UNREADABLE, "an item has no name")
    return name


def _members(members: dict[str, object], decisive: frozenset[str] = _MEMBERS) -> dict[str, object]:
    try:
        one_spelling(members, decisive)
    except Denied:
        raise Denied(Reason.LIST_UNREADABLE, "the name of a member is ambiguous") from None
    return members
