"""Trees from YAML events: bounded in depth and number, aliases by reference, each document with its line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from delegation_audit.yaml_events import MAX_DEPTH, RefusedError, documents


class Plain:
    """Lists and mappings of texts; merge keys stay."""

    def scalar(self, event: yaml.ScalarEvent, line: int, /) -> Any:
        return event.value

    def collection(self, line: int, /, *, mapping: bool) -> Any:
        return {} if mapping else []

    def name(self, mapping: Any, key: Any, line: int, /) -> str:
        if key == "refused":
            raise RefusedError(line, "holds what its reader refuses")
        return str(key)

    def add(self, parent: Any, name: str | None, value: Any, /) -> None:
        if name is None:
            parent.append(value)
        else:
            parent[name] = value

    def complete(self, mapping: Any, /) -> Any:
        return {**mapping, "closed": "yes"}

    def alias_of_nothing(self, line: int, /) -> Any:
        raise RefusedError(line, "holds an alias of nothing")


def read(text: str, most: int = 100) -> list[tuple[int, Any]]:
    return list(documents(text, Plain(), max_values=most))


def test_each_document_has_its_line_and_no_empty_one_is_told() -> None:
    assert read("a: [x]\n---\n- y\n---\n\n---\nz\n") == [
        (1, {"a": ["x"], "closed": "yes"}),
        (3, ["y"]),
        (6, ""),
        (7, "z"),
    ]
    assert read("") == []


def test_an_alias_is_the_value_itself_and_ends_with_its_document() -> None:
    ((_, root),) = read("a: &a [x]\nb: *a\n")
    assert root["a"] is root["b"]
    with pytest.raises(RefusedError, match="alias of nothing") as caught:
        read("a: &a [x]\n---\nb: *a\n")
    assert caught.value.line == 3


def test_a_value_that_would_contain_itself_is_an_alias_of_nothing() -> None:
    with pytest.raises(RefusedError, match="alias of nothing"):
        read("a: &a [*a]\n")


def test_depth_is_bounded() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(RefusedError, match=f"is nested deeper than {MAX_DEPTH} levels"):
        read("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_the_number_of_values_is_bounded_over_all_documents() -> None:
    assert read("[a, b]\n---\n[c]\n", most=5)
    with pytest.raises(RefusedError, match="holds more than 5 values") as caught:
        read("[a, b]\n---\n[c, d]\n", most=5)
    assert caught.value.line == 3


def test_a_reader_refuses_what_it_does_not_take() -> None:
    with pytest.raises(RefusedError, match="its reader refuses") as caught:
        read("a: b\nrefused: c\n")
    assert caught.value.line == 2
