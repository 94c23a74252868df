"""Cells of the verdict table: a question, a value of a closed set, and the evidence for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.doctor.attempts import Attempt

_SHOWN_VALUES: Final = 6


class Value(StrEnum):
    """A verdict. REFUSED and NARROWED are the server's answers; the last two are the doctor's own."""

    YES = "yes"
    NO = "no"
    REFUSED = "refused"
    NARROWED = "narrowed"
    CANNOT_SEE = "cannot see"
    NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of the table. ``bad`` marks a behaviour that weakens delegation."""

    id: str
    question: str
    value: Value
    detail: str = ""
    evidence: tuple[str, ...] = ()
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A row before its verdict."""

    id: str
    text: str

    def answer(
        self, value: Value, detail: str = "", evidence: Iterable[Attempt | None] = (), *, bad: bool = False
    ) -> Cell:
        """Make a cell with its evidence."""
        shown = tuple(f"{one.name}: {outcome(one)}" for one in evidence if one is not None)
        return Cell(id=self.id, question=self.text, value=value, detail=detail, evidence=shown, bad=bad)

    def untested(self, why: str, *evidence: Attempt | None) -> Cell:
        """Make the cell of a question that was not tested, with the reason."""
        return self.answer(Value.NOT_TESTED, why, evidence)

    def unseen(self, why: str, *evidence: Attempt | None) -> Cell:
        """Make the cell of a question whose answer is not visible, with the reason."""
        return self.answer(Value.CANNOT_SEE, why, evidence)


def outcome(attempt: Attempt) -> str:
    """Describe an attempt's status, error code and relevant claims, for people. No token is quoted."""
    told = attempt.answer.told
    if not attempt.accepted:
        return told
    reading = attempt.reading
    if reading.claims is None:
        return f"{told}, {reading.kind} token"
    act = "no act" if "act" not in reading.claims else f"act {act_shape(reading.act)}"
    parts = [told, act]
    if reading.audiences is not None:
        parts.append(f"aud {some(reading.audiences)}")
    if attempt.scopes is not None:
        parts.append(f"scope {some(sorted(attempt.scopes))}")
    return ", ".join(parts)


def act_shape(act: object) -> str:
    """Return the members of an act chain, with the names of its actors, outermost first."""
    levels: list[str] = []
    while isinstance(act, dict) and len(levels) < _SHOWN_VALUES:
        members = ", ".join(f"{name}: {act[name]}" if name == "sub" else name for name in act if name != "act")
        levels.append(f"{{{members}}}")
        act = act.get("act")
    if act is not None and not isinstance(act, dict):
        levels.append(f"of type {type(act).__name__}")
    return " ← ".join(levels)


def some(values: Iterable[str]) -> str:
    """Join the first values for a sentence."""
    listed = list(values)
    shown = " ".join(listed[:_SHOWN_VALUES]) or "(none)"
    return shown if len(listed) <= _SHOWN_VALUES else f"{shown} and {len(listed) - _SHOWN_VALUES} more"
