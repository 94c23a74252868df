from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_audit.credentials import fields
from delegation_audit.credentials.fields import Field, walk
from delegation_audit.credentials.tree import read_documents

TEMPLATE = Field(name="", value="", line=1, object="Thing a", owner="a")


def test_each_text_is_a_field_named_by_its_member() -> None:
    (root,) = read_documents("a: {b: x}\nc: [y, z]\n")
    found = [(field.name, field.value, field.line, field.object, field.owner) for field in walk(root, TEMPLATE)]
    assert found == [
        ("b", "x", 1, "Thing a, a.b", "a"),
        ("c", "y", 2, "Thing a, c[0]", "a"),
        ("c", "z", 2, "Thing a, c[1]", "a"),
    ]


def test_a_pair_of_name_and_value_is_a_field_of_that_name_and_a_list_of_them_a_group() -> None:
    (root,) = read_documents("env: [{name: A, value: x}, {name: B, value: y}, {name: C, valueFrom: {k: z}}]\n")
    found = list(walk(root, TEMPLATE))
    assert [(field.name, field.value) for field in found[:2]] == [("A", "x"), ("B", "y")]
    assert found[0].group == found[1].group != 0


def test_a_tree_of_aliases_is_walked_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "MAX_FIELDS", 1000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (root,) = read_documents("\n".join(lines) + "\n")
    found = list(walk(root, replace(TEMPLATE, object=None)))
    assert len(found) <= 1001
    assert [field.cut for field in found] == [False] * (len(found) - 1) + [True]
