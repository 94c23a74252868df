"""Lists of MCP, cut to what their reader may call: tools, prompts and resources. Pure.

A message that lists nothing, or nothing that has to go, is left as it is, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from sidecar.delegation.json_rpc import one_spelling
from sidecar.delegation.strict_json import StrictJsonError, parse_message_object
from sidecar.errors import Denied, Reason

FILTERED: Final = frozenset({"tools/list", "prompts/list", "resources/list"})

# A list in a result: the method by which its items are asked for, and the member that names one.
_LISTS: Final = {
    "tools": ("tools/call", "name"),
    "prompts": ("prompts/get", "name"),
    "resources": ("resources/read", "uri"),
}
_MEMBERS: Final = frozenset({"result", *_LISTS})
_NAMES: Final = frozenset({"name", "uri"})

MayCall = Callable[[str], bool]
"""Tells if the reader may ask for the operation of a key."""


def cut_lists(document: bytes, may_call: MayCall, *, max_bytes: int) -> bytes:
    """Return a message without the items that its reader may not ask for.

    A list that is not the same for everybody is no longer for caches that several users share (MCP 2026-07-28).

    Raises:
        Denied: LIST_UNREADABLE, it is no strict JSON object, it is too long, or it cannot be told what it lists.
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
        raise Denied(Reason.LIST_UNREADABLE, "a list of another kind")
    return [item for item in items if (name := _name(item, member)) and may_call(f"{method}:{name}")]


def _name(item: object, member: str) -> str:
    if not isinstance(item, dict):
        raise Denied(Reason.LIST_UNREADABLE, "an item without a name")
    name = _members(item, _NAMES).get(member)
    if not isinstance(name, str):
        raise Denied(Reason.LIST_UNREADABLE, "an item without a name")
    return name


def _members(members: dict[str, object], decisive: frozenset[str] = _MEMBERS) -> dict[str, object]:
    try:
        one_spelling(members, decisive)
    except Denied:
        raise Denied(Reason.LIST_UNREADABLE, "a member in two spellings") from None
    return members
