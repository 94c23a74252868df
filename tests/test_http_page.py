"""The page of deviations: every case it names is a case of the corpus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.corpus import cases

PAGE: Final = Path(__file__).parents[1] / "docs/http.md"
FILES: Final = (
    ("requests", "inbound"),
    ("requests", "outbound"),
    ("answers", "inbound"),
    ("inbound", "inbound"),
    ("outbound", "outbound"),
)
REQUIRED: Final = ("absolute form", "`Host` beside an absolute target", "`OPTIONS *`", "1xx")


def rows() -> list[list[str]]:
    """Return the cells of every row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if not line.startswith(("| rule", "| ---"))
    ]


def test_each_deviation_has_a_rule_a_reason_and_cases_that_exist() -> None:
    known = {case.name.partition("/")[2] for file, side in FILES for case in cases(file, side)}
    for rule, behaviour, reason, shown in rows():
        assert re.search(r"\((.*, )?91(10|12) [0-9.]+.*\)", rule), rule
        assert behaviour, rule
        assert reason, rule
        names = re.findall(r"`([^`]+)`", shown)
        assert names, rule
        assert set(names) <= known, set(names) - known


def test_the_deviations_that_reviewers_asked_about_are_there() -> None:
    rules = [row[0] for row in rows()]
    for wanted in REQUIRED:
        assert any(wanted in rule for rule in rules), wanted
