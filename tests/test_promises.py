"""Tests that every event, decision and reason of the generated pages is emitted somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sidecar.errors import Reason

ROOT: Final = Path(__file__).parent.parent
DESCRIBED: Final = ("errors.py", "observe/record.py", "audit/")  # these name what others emit


def emitters() -> Iterator[ast.Module]:
    for file in (ROOT / "sidecar").rglob("*.py"):
        if not str(file.relative_to(ROOT / "sidecar")).startswith(DESCRIBED):
            yield ast.parse(file.read_text(encoding="utf-8"))


def compared(tree: ast.AST) -> set[int]:
    """Nodes of comparisons, as in ``error.reason == Reason.X``: they look for a reason and emit none."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.pattern)]
    return {id(part) for node in found for part in ast.walk(node)}


def emitted() -> tuple[set[str], set[str]]:
    """Texts and names of reasons in the code, except those in comparisons."""
    texts: set[str] = set()
    reasons: set[str] = set()
    for tree in emitters():
        passed = compared(tree)
        for node in ast.walk(tree):
            if id(node) in passed:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
                reasons.add(node.attr)
    return texts, reasons


TEXTS, REASONS = emitted()


def first_column(page: str, heading: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(heading)[2]
    return re.findall(r"^\| `([^`]+)` \|", text.partition("\n## ")[0], re.MULTILINE)


def decisions() -> list[str]:
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `decision` |"))
    return re.findall(r"`(\w+)`", row.split("|")[2])


@pytest.mark.parametrize("event", first_column("records.md", "## Events"))
def test_an_event_of_the_page_is_emitted(event: str) -> None:
    assert event in TEXTS


@pytest.mark.parametrize("decision", decisions())
def test_a_decision_of_the_page_is_emitted(decision: str) -> None:
    assert decision in TEXTS


@pytest.mark.parametrize("reason", first_column("reasons.md", "# Reason codes"))
def test_a_reason_of_the_page_is_emitted(reason: str) -> None:
    assert Reason(reason).name in REASONS


def test_the_pages_were_read() -> None:
    assert len(first_column("records.md", "## Events")) > 10
    assert len(first_column("reasons.md", "# Reason codes")) == len(Reason)
    assert decisions() == ["allow", "deny"]
