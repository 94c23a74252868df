"""The judgement of a record: the checks in their order, the input of each, and the one that decided. Pure.

A record holds conclusions, not proofs. Checks whose input is not recorded (a signature, times, a handle) are not run
again: for them the record is trusted, and the judgement says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from delegation_core.errors import Reason

OK = "ok"
DENY_LIST: Final = "deny list"  # name of a check of each judge of requests
OF_ANY_REQUEST: Final = frozenset(
    {
        Reason.BAD_REQUEST, Reason.AMBIGUOUS_FRAMING, Reason.UPGRADE_REFUSED, Reason.TOO_LARGE, Reason.URI_TOO_LONG,
        Reason.HEAD_TOO_LARGE, Reason.EXPECTATION_REFUSED, Reason.TIMEOUT, Reason.OVERLOADED, Reason.DRAINING,
        Reason.NOT_READY, Reason.PEER_GONE, Reason.PEER_SLOW, Reason.HTTP_VERSION, Reason.FRAME_FLOOD, Reason.INTERNAL,
    }
)  # fmt: skip


class Outcome(StrEnum):
    """Result of one check."""

    HELD = "held"
    TOLD = "passed, according to the record"
    DECIDED = "decided"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, its possible reasons, and True if the record holds its input."""

    name: str
    reasons: frozenset[Reason]
    provable: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One check with its result."""

    check: str
    saw: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Judgement:
    """``recorded`` and ``judged`` are reasons, ``ok`` for a permit. ``judged`` is None where the record is trusted.

    ``decided_by`` is the name of the check that refused, None for a permit.
    """

    recorded: str
    judged: str | None
    decided_by: str | None
    steps: tuple[Step, ...]

    @property
    def agrees(self) -> bool:
        """True if the new judgement equals the recorded one, or could not be made."""
        return self.judged in {None, self.recorded}


def check_of(reason: str, checks: Sequence[Check]) -> Check | None:
    """Return the first check that can give this reason."""
    return next((check for check in checks if reason in check.reasons), None)


def conclude(
    checks: Sequence[Check], saw: Mapping[str, str], *, recorded: str, judged: str, deciding: str | None = None
) -> Judgement:
    """Combine recorded and judged outcome. ``deciding`` names the check if several checks share the reason.

    The earlier check wins, as in the sidecar: a refusal by a check that cannot be run again stands, unless an earlier
    check fails now.
    """
    order = [check.name for check in checks]
    told = check_of(recorded, checks)
    found = None if judged == OK else deciding or _name_of(check_of(judged, checks))
    where = len(order) if found is None else order.index(found)
    if told is not None and not told.provable and order.index(told.name) <= where:
        return Judgement(recorded, None, told.name, _steps(checks, saw, told.name))
    return Judgement(recorded, judged, found, _steps(checks, saw, found))


def names(of: Iterable[str]) -> str:
    """Join names for a sentence."""
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
