"""Overview of an audit: five numbers, the three most urgent actions, and the commands for details. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_ACTIONS: Final = 3


class Outcome(StrEnum):
    """Outcome of the whole audit. CANNOT_TELL: nothing was found, but a number is unknown or a part failed."""

    FINE = "nothing_found"
    FOUND = "found"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One of the five numbers. ``value`` is None if it is unknown; ``sentence`` then says what is missing."""

    name: str
    value: int | None
    sentence: str
    bad: bool
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action to take. ``urgency``: 0 is the most urgent. ``of`` groups actions by the number that they concern."""

    of: str
    urgency: int
    text: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Content of the page. ``troubles``: messages about parts that failed and about files that were not read."""

    paths: Sequence[str]
    found: str
    numbers: Sequence[Number]
    actions: Sequence[Action]
    commands: Sequence[tuple[str, str]]  # a command for details, and a description of its output
    troubles: Sequence[str] = ()

    @property
    def unknown(self) -> int:
        """Count of the numbers without a value."""
        return sum(number.value is None for number in self.numbers)

    @property
    def outcome(self) -> Outcome:
        """FOUND if a number is bad or there is an action; FINE if all numbers are known and there is no trouble."""
        if self.actions or any(number.bad for number in self.numbers):
            return Outcome.FOUND
        return Outcome.CANNOT_TELL if self.unknown or self.troubles else Outcome.FINE


def first_actions(actions: Sequence[Action]) -> list[Action]:
    """Return the first MOST_ACTIONS: the most urgent action of each group, then the others, by urgency."""
    ordered = sorted(actions, key=lambda one: (one.urgency, one.text))
    first: dict[str, Action] = {}
    for action in ordered:
        first.setdefault(action.of, action)
    chosen = list(first.values())
    chosen += [action for action in ordered if action not in chosen]
    return chosen[:MOST_ACTIONS]
