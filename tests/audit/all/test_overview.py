"""The first three things to do: the most urgent of each number before a second one of the same."""

from __future__ import annotations

import pytest

from sidecar.audit.all.overview import Action, Number, Overview, first_actions


def action(of: str, urgency: int, text: str) -> Action:
    return Action(of=of, urgency=urgency, text=text, cure="do it")


def test_each_number_has_its_turn_before_one_has_two() -> None:
    actions = [action("keys", 1, "b"), action("keys", 1, "a"), action("entries", 2, "c"), action("agents", 0, "d")]
    assert [one.text for one in first_actions(actions)] == ["d", "a", "c"]


def test_three_of_one_number_are_three() -> None:
    assert [one.text for one in first_actions([action("keys", 1, text) for text in "dcba"])] == ["a", "b", "c"]


@pytest.mark.parametrize(("bad", "expected"), [([False, False], False), ([False, True], True)])
def test_one_bad_number_is_enough(bad: list[bool], expected: bool) -> None:
    numbers = [Number(name="x", value=1, sentence="", bad=one) for one in bad]
    assert Overview(paths=[], found="", numbers=numbers, actions=[], commands=[]).bad is expected
