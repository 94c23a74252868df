"""Tests that every event, decision and reason of the generated pages is emitted somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.errors import Reason

ROOT: Final = Path(__file__).parent.parent
DESCRIBED: Final = ("errors.py", "observe/record.py", "audit/")  # these name what others emit


def emitters() -> Iterator[ast.Module]:
    for file in (ROOT / "sidecar").rglob("*.py"):
        if not str(file.relative_to(ROOT / "sidecar")).startswith(DESCRIBED):
            yield ast.parse(file.read_text(encoding="utf-8"))


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node outside comparisons: ``error.reason == Reason.X`` looks for a reason and emits none."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.Compare | ast.pattern))


def emitted() -> tuple[set[str], set[str]]:
    """Texts and names of reasons in the code of the product."""
    texts: set[str] = set()
    reasons: set[str] = set()
    for node in (node for tree in emitters() for node in nodes(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
            reasons.add(node.attr)
    return texts, reasons


def first_column(page: str, heading: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(heading)[2]
    return re.findall(r"^\| `([^`]+)` \|", text.partition("\n## ")[0], re.MULTILINE)


def decisions() -> list[str]:
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `decision` |"))
    return re.findall(r"`(\w+)`", row.split("|")[2])


def test_what_the_pages_name_is_emitted() -> None:
    texts, reasons = emitted()  # parses the whole product: once
    events, codes = first_column("records.md", "## Events"), first_column("reasons.md", "# Reason codes")
    assert (len(events) > 10, len(codes), decisions()) == (True, len(Reason), ["allow", "deny"])
    assert [event for event in events if event not in texts] == []
    assert [decision for decision in decisions() if decision not in texts] == []
    assert [code for code in codes if Reason(code).name not in reasons] == []
