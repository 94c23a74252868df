from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.operation import Operations

OPERATIONS = Operations({"tools/list": 1, "tools/call:search": 2, "prompts/get:*": 3, "tools/call:Drop": 4})


def test_a_listed_key_has_its_own_route_and_a_star_all_other_names() -> None:
    assert OPERATIONS.find("tools/call:search") == 2
    assert OPERATIONS.find("prompts/get:anything") == 3


@pytest.mark.parametrize(
    "key", ["tools/call:delete", "tools/call:*", "tools/call", "tools", "resources/list", "tools/call:", "other"]
)
def test_everything_else_is_refused(key: str) -> None:
    with pytest.raises(Denied) as refused:
        OPERATIONS.find(key)
    assert refused.value.reason is Reason.OPERATION_REFUSED


@pytest.mark.parametrize(
    "key",
    [
        "tools/call:Search",
        "tools/call:drop",
        "tools/call:search ",
        "tools/call: search",
        "tools/call:\uff53earch",
        "TOOLS/LIST",
    ],
)
def test_another_spelling_of_a_listed_key_is_not_taken_for_another_name(key: str) -> None:
    with_star = Operations({"tools/list": 1, "tools/call:search": 2, "tools/call:Drop": 4, "tools/call:*": 5})
    assert with_star.find("tools/call:else") == 5
    with pytest.raises(Denied):
        with_star.find(key)


def test_a_label_holds_no_name_that_the_settings_do_not_list() -> None:
    assert OPERATIONS.label("tools/call:search") == "tools/call:search"
    assert OPERATIONS.label("tools/call:alice@acme.example") == "tools/call:other"
    assert OPERATIONS.label("prompts/get:x") == "prompts/get:other"
    assert OPERATIONS.label("resources/list") == "resources/list"


def test_a_name_that_another_route_lists_is_named_where_it_is_refused() -> None:
    operations = Operations({"tools/call:search": 1}, named={"tools/call:delete"})
    assert operations.label("tools/call:delete") == "tools/call:delete"
    assert operations.label("tools/call:Delete") == "tools/call:other"
    with pytest.raises(Denied):
        operations.find("tools/call:delete")
