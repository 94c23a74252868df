from __future__ import annotations

import pytest

from delegation_audit.credentials import tree
from delegation_audit.credentials.tree import TreeError, read_documents
from delegation_audit.yaml_events import MAX_DEPTH


def test_a_document_keeps_the_line_of_each_value() -> None:
    (root,) = read_documents("a: 1\nb:\n  - x\n  - {c: y}\n")
    assert root.text_of("a") == "1"
    b = root.get("b")
    assert b is not None
    assert [item.line for item in b.items] == [3, 4]
    assert b.items[1].text_of("c") == "y"


def test_each_document_of_a_stream_is_read() -> None:
    assert [one.text_of("a") for one in read_documents("a: 1\n---\na: 2\n---\n")] == ["1", "2", None]


def test_a_block_begins_below_its_indicator_and_its_lines_are_lines_of_the_file() -> None:
    (root,) = read_documents("a: |\n  first\n  second\n")
    a = root.get("a")
    assert a is not None
    assert (a.line, a.literal, a.text) == (2, True, "first\nsecond\n")


def test_a_doubled_name_keeps_both_values() -> None:
    (root,) = read_documents("a: 1\na: 2\n")
    assert [value.text for name, value in root.members if name == "a"] == ["1", "2"]


def test_json_with_comments_and_trailing_commas_is_read_and_keeps_its_lines() -> None:
    (root,) = read_documents('{\n // a: b\n "url": "https://x/y", /* c\n */ "a": [1,],\n}')
    assert root.text_of("url") == "https://x/y"
    a = root.get("a")
    assert a is not None
    assert a.line == 4


def test_merged_members_stand_in_front_of_a_mappings_own() -> None:
    _, _, (_, service) = read_documents("x: &x {A: 1, B: 2}\ny: {}\ns: {<<: *x, B: 3}\n")[0].members
    assert [(name, value.text) for name, value in service.members] == [("A", "1"), ("B", "3")]


@pytest.mark.parametrize(
    "text",
    [
        "a: [" * (MAX_DEPTH + 1),
        "a: b: c",
        "\tkey: {",
        "a: 'unfinished",
        '{"a": "\x00"}',
    ],
    ids=["too deep", "no mapping", "a tab", "open quote", "a control character"],
)
def test_text_that_is_no_document_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(TreeError) as caught:
        read_documents(text + "secret-value-1234")
    assert "secret" not in str(caught.value)


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_NODES", 4)
    assert read_documents("[a, b, c]")
    with pytest.raises(TreeError, match="more than 4 values"):
        read_documents("[a, b, c, d]")


def test_a_tree_at_the_limits_is_read() -> None:
    assert read_documents("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_an_alias_of_itself_ends_as_an_empty_text() -> None:
    (root,) = read_documents("a: &a [*a]\n")
    a = root.get("a")
    assert a is not None
    assert [item.text for item in a.items] == [""]


def test_tags_execute_nothing() -> None:
    (root,) = read_documents("a: !!python/object/apply:os.system ['false']\n")
    assert root.get("a") is not None
