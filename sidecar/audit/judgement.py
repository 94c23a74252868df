"""How a record is judged again: the checks in their order, what each saw, and which one decided. Pure.

A record holds what was concluded, not the proof. Checks whose input is not recorded (a signature, times, a handle) are
not judged again: for them the record's word stands, and the judgement says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.errors import Reason

OK = "ok"


class Outcome(StrEnum):
    """What came of one check."""

    HELD = "held"
    TOLD = "held, by the record's word"
    DECIDED = "decided"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, the reasons it can give, and whether a record holds what it needs."""

    name: str
    reasons: frozenset[Reason]
    provable: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One check as it went."""

    check: str
    saw: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Judgement:
    """``recorded`` and ``judged`` are reasons, ``ok`` for a permit. ``judged`` is None where the record's word stands.

    ``decided_by`` is the name of the check that refused, None for a permit.
    """

    recorded: str
    judged: str | None
    decided_by: str | None
    steps: tuple[Step, ...]

    @property
    def agrees(self) -> bool:
        """Whether judging again comes to what is recorded, as far as it can be judged."""
        return self.judged in {None, self.recorded}


def check_of(reason: str, checks: Sequence[Check]) -> Check | None:
    """The first check that can give this reason."""
    return next((check for check in checks if reason in check.reasons), None)


def conclude(
    checks: Sequence[Check], saw: Mapping[str, str], *, recorded: str, judged: str, deciding: str | None = None
) -> Judgement:
    """Put recorded and judged outcome together. ``deciding`` names the check, where the reason has several.

    The earlier check wins, as it did then: a refusal by a check that cannot be judged again stands, unless something
    before it fails now.
    """
    order = [check.name for check in checks]
    told = check_of(recorded, checks)
    found = None if judged == OK else deciding or _name_of(check_of(judged, checks))
    where = len(order) if found is None else order.index(found)
    if told is not None and not told.provable and order.index(told.name) <= where:
        return Judgement(recorded, None, told.name, _steps(checks, saw, told.name))
    return Judgement(recorded, judged, found, _steps(checks, saw, found))


def names(of: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(of)) or "nothing"


def _name_of(check: Check | None) -> str | None:
    return None if check is None else check.name


def _steps(checks: Sequence[Check], saw: Mapping[str, str], decided_by: str | None) -> tuple[Step, ...]:
    steps: list[Step] = []
    outcome = Outcome.HELD
    for check in checks:
        if check.name == decided_by:
            outcome = Outcome.DECIDED
        elif outcome in {Outcome.DECIDED, Outcome.NOT_REACHED}:
            outcome = Outcome.NOT_REACHED
        else:
            outcome = Outcome.HELD if check.provable else Outcome.TOLD
        text = "" if outcome is Outcome.NOT_REACHED else saw.get(check.name, "")
        steps.append(Step(check.name, text, outcome))
    return tuple(steps)
