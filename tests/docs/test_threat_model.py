"""The threat model has a section for each attacker, and each row names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
# By section: the attackers that a row in it may name first.
ATTACKERS: Final = {
    "An outsider": {"outsider"},
    "A peer": {"peer"},
    "An agent, or another program beside it": {"agent", "another process of the pod or machine"},
    "An upstream, a token service or a partner": {"upstream", "token service", "federated partner"},
    "A tenant of the cluster": {"tenant", "tenant of another namespace"},
    "An operator, or whoever writes settings and files": {
        "operator",
        "reader of records",
        "whoever can write the record files afterwards",
        "whoever writes a workload's settings",
    },
    "A failure": {"failure"},
}


def sections() -> dict[str, str]:
    return dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_each_attacker_has_a_section_that_says_what_remains() -> None:
    assert list(sections()) == list(ATTACKERS)
    assert [title for title, text in sections().items() if "**What remains:**" not in text] == []


@pytest.mark.parametrize("title", ATTACKERS)
def test_each_row_is_complete_and_its_tests_are_there(title: str) -> None:
    for attacker, attempt, defence, residual, tests in rows(sections()[title]):
        assert re.split(r",| \(", attacker)[0] in ATTACKERS[title], attempt
        assert attempt
        assert defence
        assert residual, attempt
        named = re.findall(r"`((?:tests|monitoring)/[^`:]+)", tests)
        assert named, attempt
        assert [test for test in named if not (ROOT / test).exists()] == [], attempt


def test_every_row_is_in_a_section() -> None:
    inside = sum(len(rows(text)) for text in sections().values())
    assert inside == len(re.findall(r"^\| (?!attacker |---)", PAGE, re.MULTILINE)) > 70
