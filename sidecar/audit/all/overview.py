"""The overview of an audit: five numbers, the first three things to do, where to read on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_ACTIONS: Final = 3


class Outcome(StrEnum):
    """The answer of the whole audit. Nothing found, with a number that nobody could tell, is not all fine."""

    FINE = "nothing_found"
    FOUND = "found"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One of the five numbers. ``value`` is None where there was nothing to look at; ``sentence`` then says what is
    missing.
    """

    name: str
    value: int | None
    sentence: str
    bad: bool
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do. ``urgency``: the smaller, the sooner; ``of`` is the number that it is about."""

    of: str
    urgency: int
    text: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything that the page shows. ``troubles`` are parts that could not be run, each with its fix."""

    paths: Sequence[str]
    found: str
    numbers: Sequence[Number]
    actions: Sequence[Action]
    commands: Sequence[tuple[str, str]]  # a command to read on, and what it tells
    troubles: Sequence[str] = ()

    @property
    def unknown(self) -> int:
        """Number of numbers that cannot be told."""
        return sum(number.value is None for number in self.numbers)

    @property
    def outcome(self) -> Outcome:
        """Found, if a number is bad or something is to do; fine only if every number was told and every part ran."""
        if self.actions or any(number.bad for number in self.numbers):
            return Outcome.FOUND
        return Outcome.CANNOT_TELL if self.unknown or self.troubles else Outcome.FINE


def first_actions(actions: Sequence[Action]) -> list[Action]:
    """Return the first three things to do: the most urgent of each number, then the next ones."""
    ordered = sorted(actions, key=lambda one: (one.urgency, one.text))
    first: dict[str, Action] = {}
    for action in ordered:
        first.setdefault(action.of, action)
    chosen = list(first.values())
    chosen += [action for action in ordered if action not in chosen]
    return chosen[:MOST_ACTIONS]
