"""The steps of docs/life-of-a-request.md: each names a file of ours and a function in it.

``tests/integration/test_life_of_a_request.py`` runs them and compares their order.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "life-of-a-request.md"
SECTIONS: Final = ("A request", "An MCP call", "A reload", "A revocation")
_ROW: Final = re.compile(r"^\| (\d+) \| \[`([^`]+)`\]\(([^)]+)\) \| `([\w.]+)` \| (.+) \|$", re.MULTILINE)


class Step(NamedTuple):
    """A row of a table: its number, the file as it is named and where the link leads, and the function in it."""

    number: int
    name: str
    file: Path
    function: str
    text: str


def text_of(section: str, part: str = "") -> str:
    """Return the text of a section, or of one of its parts."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return text.partition(f"\n### {part}\n")[2].partition("\n### ")[0] if part else text


def steps(section: str, part: str = "") -> list[Step]:
    """Return the steps of a section, or of one of its parts, in the order of the page."""
    return [
        Step(int(number), name, (PAGE.parent / link).resolve(), function, told)
        for number, name, link, function, told in _ROW.findall(text_of(section, part))
    ]


@cache
def functions(file: Path) -> frozenset[str]:
    """Return the qualified names of the functions of a file, as ``co_qualname`` has them."""

    def walk(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name

    return frozenset(walk(ast.parse(file.read_text(encoding="utf-8")), ""))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_steps_are_numbered_in_the_order_of_the_page(section: str) -> None:
    assert [one.number for one in steps(section)] == list(range(1, len(steps(section)) + 1))
    assert len(steps(section)) > 20


@pytest.mark.parametrize("section", SECTIONS)
def test_each_step_names_a_file_and_a_function_in_it(section: str) -> None:
    for one in steps(section):
        assert one.file.is_file(), one.name
        assert one.file.as_posix().endswith(f"/{one.name}"), one.name
        assert one.function in functions(one.file), f"{one.number}: {one.name} has no {one.function}"


def test_no_row_is_left_out_and_no_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \|", text, re.MULTILINE)
    assert len(rows) == sum(len(steps(section)) for section in SECTIONS)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_step_that_the_text_points_at_is_there(section: str) -> None:
    text = text_of(section)
    named = {int(one) for two in re.findall(r"\bsteps? (\d+)(?: to (\d+))?", text) for one in two if one}
    assert named <= {one.number for one in steps(section)}
