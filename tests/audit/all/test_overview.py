"""The first three things to do: the most urgent of each number before a second one of the same."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_audit.all.overview import Action, Number, Outcome, Overview, first_actions


def action(of: str, urgency: int, text: str) -> Action:
    return Action(of=of, urgency=urgency, text=text, fix="do it")


def test_each_number_has_its_turn_before_one_has_two() -> None:
    actions = [action("keys", 1, "b"), action("keys", 1, "a"), action("entries", 2, "c"), action("agents", 0, "d")]
    assert [one.text for one in first_actions(actions)] == ["d", "a", "c"]


def test_three_of_one_number_are_three() -> None:
    assert [one.text for one in first_actions([action("keys", 1, text) for text in "dcba"])] == ["a", "b", "c"]


def number(value: int | None, *, bad: bool = False) -> Number:
    return Number(name="x", value=value, sentence="", bad=bad)


@pytest.mark.parametrize(
    ("changes", "outcome", "unknown"),
    [
        pytest.param({}, Outcome.FINE, 0, id="every-number-told-and-good"),
        pytest.param({"numbers": [number(0), number(1, bad=True)]}, Outcome.FOUND, 0, id="one-bad-number"),
        pytest.param({"numbers": [number(None), number(1, bad=True)]}, Outcome.FOUND, 1, id="found-before-unknown"),
        pytest.param({"actions": [action("keys", 1, "a")]}, Outcome.FOUND, 0, id="something-to-do"),
        pytest.param({"numbers": [number(0), number(None)]}, Outcome.CANNOT_TELL, 1, id="one-number-unknown"),
        pytest.param({"troubles": ["it could not be run"]}, Outcome.CANNOT_TELL, 0, id="a-part-that-was-not-run"),
        pytest.param(
            {"troubles": ["not run"], "numbers": [number(1, bad=True)]}, Outcome.FOUND, 0, id="found-beside-trouble"
        ),
    ],
)
def test_nothing_found_is_fine_only_if_everything_was_told(
    changes: dict[str, Any], outcome: Outcome, unknown: int
) -> None:
    facts: dict[str, Any] = {"paths": [], "found": "", "numbers": [number(0), number(0)], "actions": [], "commands": []}
    overview = Overview(**{**facts, **changes})
    assert (overview.outcome, overview.unknown) == (outcome, unknown)
