from __future__ import annotations

import json
from typing import Any

import pytest

from delegation_core.a2a_lists import cut_tasks
from delegation_core.errors import Denied, Reason

LISTED: dict[str, Any] = {"tasks": [{"id": "1", "kind": "task"}, {"id": "2"}], "pageSize": 50}


def cut(listed: object, *, json_rpc: bool = False, first_page: bool = True, max_bytes: int = 4096) -> Any:
    document = json.dumps({"jsonrpc": "2.0", "id": 1, "result": listed} if json_rpc else listed).encode()
    found = cut_tasks(
        document, lambda task, _: task == "1", json_rpc=json_rpc, first_page=first_page, max_bytes=max_bytes
    )
    shown = json.loads(found)
    return shown["result"] if json_rpc else shown


@pytest.mark.parametrize("json_rpc", [False, True])
def test_what_its_reader_may_not_see_goes_and_all_else_stays(json_rpc: bool) -> None:
    assert cut(LISTED, json_rpc=json_rpc) == {"tasks": [{"id": "1", "kind": "task"}], "pageSize": 50}


@pytest.mark.parametrize(
    ("more", "first_page", "total"),
    [
        ({"totalSize": 7}, True, 1),
        ({"total_size": 7, "nextPageToken": ""}, True, 1),
        ({"totalSize": 7, "nextPageToken": "more"}, True, None),
        ({"totalSize": 7, "next_page_token": "more"}, True, None),
        ({"totalSize": 7}, False, None),
        ({}, True, None),
    ],
)
def test_the_total_is_of_what_is_shown_or_is_not_there(more: dict[str, Any], first_page: bool, total: object) -> None:
    found = cut({**LISTED, **more}, first_page=first_page)
    assert found.get("totalSize") == total
    assert "total_size" not in found
    for token in ("nextPageToken", "next_page_token"):
        assert found.get(token) == more.get(token)


def test_a_total_of_others_goes_also_where_no_task_has_to() -> None:
    found = cut({"tasks": [{"id": "1"}], "totalSize": 7, "nextPageToken": "x"})
    assert found == {"tasks": [{"id": "1"}], "nextPageToken": "x"}


@pytest.mark.parametrize("document", [b'{ "tasks": [ {"id":"1"} ] }', b'{ "tasks" : null }', b"{ }", b'{"error": {} }'])
def test_a_list_in_which_nothing_has_to_go_stays_as_it_came(document: bytes) -> None:
    assert cut_tasks(document, lambda *_: True, json_rpc=False, first_page=True, max_bytes=99) == document


def test_an_error_of_json_rpc_stays_as_it_came() -> None:
    document = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32601}}'
    assert cut_tasks(document, lambda *_: False, json_rpc=True, first_page=True, max_bytes=99) == document


@pytest.mark.parametrize(
    "listed",
    [
        {"tasks": {"id": "1"}},
        {"tasks": {}},
        {"tasks": ""},
        {"tasks": 0},
        {"tasks": False},
        {"tasks": ["1"]},
        {"tasks": [{}]},
        {"tasks": [{"id": 1}]},
        {"tasks": [{"id": ""}]},
        {"tasks": [{"id": "x" * 1025}]},
        {"tasks": [{"ID": "2"}]},
        {"tasks": [{"id": "1", "Id": "2"}]},
        {"tasks": [{"id": "1", "contextId": 7}]},
        {"tasks": [{"id": "1", "contextId": "c", "context_id": "d"}]},
        {"tasks": [{"id": "1", "ContextId": "c"}]},
        {"tasks": [], "Tasks": [{"id": "2"}]},
        {"tasks": [], "total_size": 1, "totalSize": 1},
        {"tasks": [], "__proto__": {"tasks": [{"id": "2"}]}},
    ],
)
def test_a_list_that_could_be_read_in_two_ways_is_refused(listed: dict[str, Any]) -> None:
    for json_rpc in (False, True):
        with pytest.raises(Denied) as refused:
            cut(listed, json_rpc=json_rpc)
        assert refused.value.reason is Reason.LIST_UNREADABLE


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b'{"jsonrpc":"2.0","id":1}', b'{"result":[{"id":"2"}]}', b'{"Result":{"tasks":[{"id":"2"}]}}', b"{}x"],
)
def test_an_answer_of_json_rpc_without_one_result_is_refused(document: bytes) -> None:
    with pytest.raises(Denied):
        cut_tasks(document, lambda *_: True, json_rpc=True, first_page=True, max_bytes=99)


def test_a_task_is_judged_with_its_context_by_either_name() -> None:
    asked: list[tuple[str, str | None]] = []

    def may_see(task: str, context: str | None) -> bool:
        asked.append((task, context))
        return True

    document = b'{"tasks": [{"id": "1", "contextId": "c"}, {"id": "2", "context_id": "d"}, {"id": "3"}]}'
    cut_tasks(document, may_see, json_rpc=False, first_page=True, max_bytes=999)
    assert asked == [("1", "c"), ("2", "d"), ("3", None)]


def test_a_list_that_is_too_long_is_refused() -> None:
    assert cut(LISTED, max_bytes=200)
    with pytest.raises(Denied):
        cut(LISTED, max_bytes=10)
