"""Nouns and verbs agree with their number."""

from __future__ import annotations

import pytest

from delegation_core.console.counts import part, pluralise


@pytest.mark.parametrize(("count", "said"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_a_noun_agrees_with_its_count(count: int, said: str) -> None:
    assert pluralise(count, "file") == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries")])
def test_a_noun_may_have_a_plural_of_its_own(count: int, said: str) -> None:
    assert pluralise(count, "entry", "entries") == said


@pytest.mark.parametrize(
    ("count", "whole", "said"),
    [
        (0, 1, "0 of 1 chain is"),
        (1, 1, "1 of 1 chain is"),
        (0, 2, "0 of 2 chains are"),
        (1, 2, "1 of 2 chains is"),
        (2, 3, "2 of 3 chains are"),
        (0, 0, "0 of 0 chains are"),
    ],
)
def test_a_verb_agrees_with_part_and_whole(count: int, whole: int, said: str) -> None:
    assert part(count, whole, "chain") == said
