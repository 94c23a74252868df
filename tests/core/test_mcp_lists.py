"""Lists of MCP hold what their reader may call; anything else in a message stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.mcp_lists import cut_lists

TOOLS = [{"name": "search", "inputSchema": {"x": [1, 2.5]}}, {"name": "drop"}, {"name": "é"}]


def cut(message: Any, *allowed: str) -> Any:
    document = message if isinstance(message, bytes) else json.dumps(message).encode()
    passed = cut_lists(document, lambda key: key in allowed, max_bytes=10_000)
    return passed if isinstance(message, bytes) else json.loads(passed)


def result(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": members}


def test_what_may_not_be_called_goes_and_the_cursor_stays() -> None:
    listed = result(tools=TOOLS, nextCursor="drop", _meta={"tools": ["drop"]})
    assert cut(listed, "tools/call:search", "tools/call:é") == result(
        tools=[TOOLS[0], TOOLS[2]], nextCursor="drop", _meta={"tools": ["drop"]}
    )
    assert cut(listed) == result(tools=[], nextCursor="drop", _meta={"tools": ["drop"]})


def test_prompts_and_resources_are_named_by_their_own_members() -> None:
    listed = result(prompts=[{"name": "a", "uri": "b"}], resources=[{"name": "a", "uri": "b"}])
    assert cut(listed, "prompts/get:a") == result(prompts=[{"name": "a", "uri": "b"}], resources=[])
    assert cut(listed, "resources/read:b") == result(prompts=[], resources=[{"name": "a", "uri": "b"}])


@pytest.mark.parametrize(
    "document",
    [
        b'{"jsonrpc": "2.0", "id": 1,  "error": {"code": 1, "message": "tools"}}',
        b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"tools": [{"name": "x"}]}}',
        b'{"jsonrpc": "2.0", "id": 1,  "result": {"content": [{"tools": ["x"]}], "n": 1e2}}',
        b'{"jsonrpc": "2.0", "id": 1,  "result": {"tools": [{"name":  "search"}]}}',
        b'{"jsonrpc": "2.0", "id": 1,  "result": {"tools": [{"name":  "search"}], "cacheScope": "private"}}',
        b'{"jsonrpc": "2.0", "id": 1,  "result": {"content": [], "cacheScope": "public"}}',
    ],
)
def test_a_message_in_which_nothing_goes_is_left_byte_for_byte(document: bytes) -> None:
    assert cut(document, "tools/call:search") == document


def test_a_list_for_one_reader_is_for_no_shared_cache() -> None:
    listed = result(tools=[TOOLS[0]], cacheScope="public", ttlMs=5)
    assert cut(listed, "tools/call:search") == result(tools=[TOOLS[0]], cacheScope="private", ttlMs=5)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"tools",
        b'{"result":{"tools":[]},"result":{}}',
        b'{"result":{"tools":[],"Tools":[{"name":"drop"}]}}',
        b'{"Result":{"tools":[{"name":"drop"}]}}',
        b'{"result":{"tools":{"name":"drop"}}}',
        b'{"result":{"tools":{}}}',
        b'{"result":{"tools":""}}',
        b'{"result":{"tools":["drop"]}}',
        b'{"result":{"tools":[{"Name":"drop"}]}}',
        b'{"result":{"tools":[{"name":"search","NAME":"drop"}]}}',
        b'{"result":{"tools":[{"name":1}]}}',
        b'{"result":{"resources":[{"name":"drop"}]}}',
        '{"result":{"tools":[]}}'.encode("utf-16"),
        b'{"x":"' + b"x" * 10_000 + b'"}',
    ],
)
def test_what_could_list_anything_is_refused(document: bytes) -> None:
    with pytest.raises(Denied) as denied:
        cut(document, "tools/call:search")
    assert denied.value.reason is Reason.LIST_UNREADABLE


def test_an_item_with_an_empty_name_can_be_called_by_nobody() -> None:
    assert cut(result(tools=[{"name": ""}]), "tools/call:") == result(tools=[])
