"""The labelled set: each rule is found where it was planted, and nowhere else."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from delegation_audit.rules import Weakness
from delegation_audit.selectors.examination import Result, examine
from delegation_audit.selectors.rulebook import RULES
from tests.audit.selectors.labelled import NOW, ROWS, Row, Shown

ELSEWHERE = {"federates-with-unknown": "test_entry_checks", "actor-without-entry": "test_actors"}


def judged(folder: Path, entries: Sequence[Shown], **options: Any) -> Result:
    """The result for entries, written as JSON lines so that the line tells the entry."""
    file = folder / "entries.jsonl"
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return examine([str(file)], now=NOW, **options)


def labels(weaknesses: Sequence[Weakness]) -> list[tuple[int, str]]:
    return sorted(((one.place.line or 0) - 1, one.rule.id) for one in weaknesses)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_a_rule_is_found_where_it_was_planted_and_not_in_the_lawful_twin(row: Row, tmp_path: Path) -> None:
    assert labels(judged(tmp_path, row.weak).weaknesses) == [(at, row.rule) for at in row.broken]
    assert labels(judged(tmp_path, row.lawful).weaknesses) == []


def test_every_rule_is_in_the_labelled_set_and_has_its_texts() -> None:
    assert {rule.id for rule in RULES} == {row.rule for row in ROWS} | set(ELSEWHERE)
    for rule in RULES:
        assert all(text.strip() and not text.endswith("\n") for text in (rule.title, rule.why, rule.fix))
        assert rule.standard


def isolated(entry: Shown, number: int) -> Shown:
    """The entry in trust domains that no other planted entry has, hence under a parent of its own."""
    moved: Shown = json.loads(json.dumps(entry).replace('.example"', f'.example{number}"'))
    return moved


def test_two_thousand_random_entries_are_labelled_exactly(tmp_path: Path) -> None:
    chosen = random.Random(17)
    # Of two equal entries the later one is the duplicate, so shuffling moves that label. Templates have no parent.
    rows = [row for row in ROWS if row.rule != "duplicate-entry" and "kind" not in row.weak[0]]
    planted: list[tuple[Shown, str | None]] = []
    while len(planted) < 2000:
        row, weak = chosen.choice(rows), chosen.random() < 0.5
        for at, entry in enumerate(row.weak if weak else row.lawful):
            planted.append((isolated(entry, len(planted) - at), row.rule if weak and at in row.broken else None))
    chosen.shuffle(planted)
    expected = [(at, rule) for at, (_, rule) in enumerate(planted) if rule is not None]
    assert len({rule for _, rule in expected}) >= 25
    assert labels(judged(tmp_path, [entry for entry, _ in planted]).weaknesses) == expected
