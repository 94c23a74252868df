"""Ranks a credential by reach times exposure times age, and derives its severity."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

from delegation_audit.credentials.fields import Exposure
from delegation_audit.credentials.kinds import KINDS, Kind
from delegation_audit.rules import Severity

_EXPOSED: Final = {
    Exposure.HISTORY: 3,
    Exposure.CODE: 3,
    Exposure.PIPELINE: 3,
    Exposure.CONFIGURATION: 2,
    Exposure.SECRET_OBJECT: 2,
    Exposure.PROVIDER: 1,
    Exposure.RECORD: 1,
}
_YEAR: Final = 365
_QUARTER: Final = 90
_SEVERITIES: Final = ((30, Severity.CRITICAL), (12, Severity.HIGH), (5, Severity.MEDIUM))


def age_days(created: str | None, today: str) -> int | None:
    """Return the days from ``created`` to ``today``, at least 0; None if ``created`` is None or no date."""
    try:
        return None if created is None else max(0, (date.fromisoformat(today) - date.fromisoformat(created)).days)
    except ValueError:
        return None


def rank(kind: Kind, exposures: Collection[Exposure], *, places: int, owners: int, age: int | None) -> int:
    """Return reach (1 to 6) times exposure (1 to 4) times age (1 to 3); an unknown age counts as 2."""
    reach = KINDS[kind].reach + (owners > 1)
    exposure = max((_EXPOSED[one] for one in exposures), default=1) + (places > 2)  # copies spread
    old = 2 if age is None or _QUARTER < age <= _YEAR else 3 if age > _YEAR else 1
    return reach * exposure * old


def severity_of(number: int) -> Severity:
    """Return the severity of a rank."""
    return next((severity for least, severity in _SEVERITIES if number >= least), Severity.LOW)
